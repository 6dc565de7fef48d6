"""The trainer of an ensemble: one batch for all members, the memory of one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys

from ..checks import InputError, problem
from .distributed import average_gradients, share_weights
from .stage_trainer import StageTrainer

__all__ = ["MemberTrainer"]


class MemberTrainer(StageTrainer):
    """Train the members of an ensemble, which share no weights, on the same batches.

    For each member of ``network.members`` in order: forward, loss and backward; its activations are freed before the
    next begins. Then one step of the optimiser, which holds the parameters of all of them. The loss that is recorded is
    the members' mean; each member's gradient is that of its own loss, as if it were trained alone.

    Of the events of an iteration, ``FORWARD_COMPLETED`` and ``LOSS_COMPLETED`` fire once for each member, with its
    prediction and its loss in the output; ``BACKWARD_COMPLETED`` and ``MODEL_COMPLETED`` once, with the mean loss. No
    prediction is kept, since each is of one member.

    Under ``torchrun`` the gradients of the optimiser's parameters are averaged over the processes once an iteration:
    which parts of a member run depends on the case, and that is more than ``DistributedDataParallel`` follows.

    Parameters that no member used in a step are not moved, neither by momentum nor by weight decay (gradients start
    as None, see `optim_set_to_none`); a resumed run could not repeat it otherwise.

    Args:
        network_def: as of :class:`StageTrainer`.
        network: what is trained, with the members as a ``ModuleDict`` in ``members``.
        inferer: ``inferer(inputs, member, targets)`` gives what the loss function takes beside the targets. It sees the
            targets because regions of interest may come from them; extra arguments of the batch follow.
        kwargs: as of :class:`StageTrainer`.

    Raises:
        InputError: for a network without members, or ``compile``: members are not run through their forward.
    """

    def __init__(
        self, network_def: torch.nn.Module, network: torch.nn.Module, *, inferer: Callable[..., Any], **kwargs: Any
    ) -> None:
        if not isinstance(getattr(network, "members", None), torch.nn.ModuleDict) or len(network.members) == 0:
            came = f"{type(network).__name__} has no members"
            rule = "an ensemble keeps its networks as a ModuleDict named members"
            raise InputError(problem(came, rule, "train a single network by common.engines.StageTrainer"))
        if kwargs.get("compile"):
            rule = "the steps of a member are called one by one, which a compiled forward has no part in"
            raise InputError(problem("compile is set", rule, "leave it out"))
        kwargs.setdefault("optim_set_to_none", True)
        super().__init__(network_def, network, inferer=inferer, **kwargs)

    def _for_processes(self, network: torch.nn.Module) -> torch.nn.Module:
        return share_weights(network)

    def _iteration(self, engine: MemberTrainer, batchdata: Any) -> list[dict[str, Any]]:
        batch = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        inputs, targets, args, kwargs = batch if len(batch) == 4 else (*batch, (), {})
        self.state.output = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
        first, last = self._place_in_step()
        self.network.train()
        if first:
            self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        losses = [self._learn(member, args, kwargs) for member in self.network.members.values()]
        self.state.output[CommonKeys.LOSS] = torch.stack(losses).mean()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if last:
            average_gradients(parameters)
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        # a scaler refuses a step for which there is no gradient at all
        if last and any(parameter.grad is not None for parameter in parameters):
            self._step()
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self._as_list(self.state.output)

    def _learn(self, member: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor:
        """Add the gradient of one member's loss; the loss, detached."""
        output = self.state.output
        inputs, targets = output[CommonKeys.IMAGE], output[CommonKeys.LABEL]
        with torch.autocast("cuda", **self.amp_kwargs) if self.amp else nullcontext():
            output[CommonKeys.PRED] = self.inferer(inputs, member, targets, *args, **kwargs)
            self.fire_event(IterationEvents.FORWARD_COMPLETED)
            output[CommonKeys.LOSS] = self.loss_function(output[CommonKeys.PRED], targets).mean()
            self.fire_event(IterationEvents.LOSS_COMPLETED)
        del output[CommonKeys.PRED]
        loss = output.pop(CommonKeys.LOSS)
        part = loss / self.accumulation_steps
        (part if self.scaler is None else self.scaler.scale(part)).backward()
        return loss.detach()

    def _place_in_step(self) -> tuple[bool, bool]:
        """Whether this iteration is the first, and whether it is the last, of those that the next step sums up."""
        count, length = self.accumulation_steps, self.state.epoch_length
        done = self.state.iteration if length is None else (self.state.iteration - 1) % length + 1
        return (done - 1) % count == 0, done % count == 0 or done == length

    def _step(self) -> None:
        if self.scaler is None:
            self.optimizer.step()
        else:  # unscales, and steps unless some member's gradient overflowed
            self.scaler.step(self.optimizer)
            self.scaler.update()
