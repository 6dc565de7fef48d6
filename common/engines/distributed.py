"""What training in several processes needs; each function does the right thing in a single one, too."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "average_gradients",
    "barrier",
    "exchange_gradients",
    "gathered",
    "of_first_rank",
    "processes",
    "rank",
    "share_weights",
    "shared_token",
]


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process; 0 when it is the only one."""
    return dist.get_rank() if _initialised() else 0


def processes() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _initialised() else 1


def gathered(value: Any) -> list[Any]:
    """What every process handed in, in the order of their numbers; all of them must call it, and each waits for all."""
    if not _initialised():
        return [value]
    values: list[Any] = [None] * processes()
    dist.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait until every process is here."""
    if _initialised():
        dist.barrier()


def of_first_rank(value: Any) -> Any:
    """What rank 0 handed in; all processes must call it."""
    values = [value]
    if _initialised():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def shared_token() -> str:
    """A random name, the same in every process; all of them must ask for it."""
    return of_first_rank(secrets.token_hex(8))


def exchange_gradients(network: torch.nn.Module) -> torch.nn.Module:
    """The network wrapped for averaging of its gradients over the processes; the network itself in a single one."""
    if not _initialised() or dist.get_world_size() == 1:
        return network
    device = next(network.parameters()).device
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def share_weights(network: torch.nn.Module) -> torch.nn.Module:
    """The network, in every process with the weights that it has in rank 0; all of them must call it."""
    if processes() > 1:
        for tensor in (*network.parameters(), *network.buffers()):
            dist.broadcast(tensor.detach(), src=0)
    return network


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes; all of them must call it, with the same parameters.

    For networks of which parts are run by turns, or not at all, which ``DistributedDataParallel`` does not follow. A
    parameter without a gradient in some of the processes counts there as one with gradient 0; without one in all of
    them it stays without.

    Args:
        parameters: of one device.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if processes() == 1 or not trained:
        return
    present = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
    present = present.to(trained[0].device)
    dist.all_reduce(present, op=dist.ReduceOp.MAX)
    trained = [parameter for parameter, somewhere in zip(trained, present.tolist()) if somewhere]
    # in one message per type: many small ones would cost more time than the bytes do
    for dtype in dict.fromkeys(parameter.dtype for parameter in trained):
        group = [parameter for parameter in trained if parameter.dtype == dtype]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
        joined = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(joined)
        joined /= processes()
        for parameter, mean in zip(group, joined.split([p.numel() for p in group])):
            parameter.grad = mean.view_as(parameter)
