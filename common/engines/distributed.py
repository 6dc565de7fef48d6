"""What training in several processes needs; each function does the right thing in a single one, too."""

from __future__ import annotations

import secrets
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

__all__ = ["barrier", "exchange_gradients", "gathered", "processes", "rank", "shared_token"]


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


def shared_token() -> str:
    """A random name, the same in every process; all of them must ask for it."""
    token = [secrets.token_hex(8)]
    if _initialised():
        dist.broadcast_object_list(token, src=0)
    return token[0]


def exchange_gradients(network: torch.nn.Module) -> torch.nn.Module:
    """The network wrapped for averaging of its gradients over the processes; the network itself in a single one."""
    if not _initialised() or dist.get_world_size() == 1:
        return network
    device = next(network.parameters()).device
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)
