"""The resume file of a stage: what a training needs to go on as if it had not been broken off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checks import InputError, WeightsError, problem
from ..weights import differing_settings, save_tensors

__all__ = ["ResumeFile", "check_no_later_stage", "check_plan"]


class ResumeFile:
    """What a stage's resume file holds of network, optimiser and schedule, written and read.

    Args:
        path: the file.
        network: the composite, whole: a later stage may read what an earlier one left.
        optimizer: of the stage.
        lr_scheduler: of the stage, or None.
    """

    def __init__(self, path: Path, network: torch.nn.Module, optimizer: Any, lr_scheduler: Any) -> None:
        self.path, self.network, self.optimizer, self.lr_scheduler = path, network, optimizer, lr_scheduler

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the states beside what the trainer wants to find again, whole or not at all."""
        states = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict() if self.lr_scheduler is not None else None,
        }
        save_tensors({**record, **states}, self.path)

    def read(self) -> dict[str, Any]:
        """The content of the file.

        Raises:
            WeightsError: when it cannot be read, or holds no run.
        """
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            content["run"]
        except Exception as error:  # a file cut short, or no resume file
            raise self._unfit(error) from error
        return content

    def load(self, content: Mapping[str, Any]) -> None:
        """Put the states that were read into network, optimiser and schedule.

        Raises:
            WeightsError: when they are of others.
        """
        try:
            self.network.load_state_dict(content["network"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.lr_scheduler is not None:
                self.lr_scheduler.load_state_dict(content["lr_scheduler"])
        except Exception as error:  # of another network, of another optimiser
            raise self._unfit(error) from error

    def _unfit(self, error: Exception) -> WeightsError:
        return WeightsError(
            problem(
                f"'{self.path}' does not fit this training ({str(error).splitlines()[0][:200]})",
                "resuming needs the network, optimiser and schedule that it was begun with",
                "start with the same config and overlays, or without --resume",
            )
        )


def check_plan(content: Mapping[str, Any], stage: str, settings: Mapping[str, Any], max_epochs: int) -> None:
    """Refuse to go on under another plan than the stage was begun with.

    Args:
        content: of the resume file.
        stage: its name, for the texts.
        settings: those of now.
        max_epochs: those of now; another number is no harm as long as the learning rate has not moved.

    Raises:
        InputError: naming what is otherwise.
    """
    if other := differing_settings(content.get("settings", {}), settings):
        raise InputError(
            problem(
                f"stage '{stage}' was begun with {other}",
                "a run is resumed with the settings that it was begun with",
                "give these again, or train anew",
            )
        )
    rates = {row["learning_rate"] for row in content["history"]} | {content["optimizer"]["param_groups"][0]["lr"]}
    if max_epochs != content["max_epochs"] and len(rates) > 1:
        raise InputError(
            problem(
                f"stage '{stage}' was planned for {content['max_epochs']} epochs, not {max_epochs}",
                "a learning rate that follows a schedule is resumed with the epochs that it was made for",
                "keep the number, or train anew",
            )
        )


def check_no_later_stage(path: Path, stage: str, run: str) -> None:
    """Refuse to train a stage further when another has begun with the weights that it left.

    Args:
        path: the stage's resume file, beside which those of the other stages lie.
        stage: its name.
        run: token of the run.

    Raises:
        InputError: naming the later stage. It would go on with weights that it was not trained with, or be overwritten.
    """
    for other in sorted(path.parent.glob("resume_*.pt")):
        if other == path:
            continue
        try:
            content = torch.load(other, map_location="cpu", weights_only=True, mmap=True)  # its tensors are not read
        except Exception:  # that stage will say so
            continue
        if content.get("run") == run and stage in content.get("after", ()):
            later = other.stem.removeprefix("resume_")
            raise InputError(
                problem(
                    f"stage '{stage}' would be trained further, and stage '{later}' has begun with what it left",
                    "a stage is resumed to more epochs only while it is the last that was begun",
                    f"keep the epochs and patience of '{stage}', or train anew, without --resume",
                )
            )
