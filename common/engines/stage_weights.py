"""What the stages of a run leave in the bundle's weights file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..checks import InputError, WeightsError, problem
from ..files import read_json
from ..weights import info_path, load_weights, save_weights, set_aside

__all__ = ["StageWeights"]


class StageWeights:
    """The best weights of one stage, in the file that holds the whole composite.

    Args:
        path: the bundle's ``models/model.pt``.
        composite: every network of the method.
        child: the one that the stage trains; the composite itself where stages share it.

    Raises:
        InputError: when the child is no part of the composite.
    """

    def __init__(self, path: Path, composite: torch.nn.Module, child: torch.nn.Module) -> None:
        self.path, self.composite = path, composite
        names = [name for name, module in composite.named_modules() if module is child]
        if not names:
            rule = "a stage trains network_def or a child of it, or its weights would be saved nowhere"
            remedy = "refer to the child by network_def, as in '$@network.liver'"
            raise InputError(problem(f"the {type(child).__name__} of a stage is no part of network_def", rule, remedy))
        self.prefix = f"{names[0]}." * bool(names[0])

    def save(self, run: str, stage: str, entry: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        """Write the composite as it is; weights of another run are set aside, entries of earlier stages kept.

        Args:
            run: token of the run.
            stage: name of the stage.
            entry: what the sidecar shall say of it.
            info: what it shall say besides.
        """
        stages: dict[str, Any] = {}
        if self.path.is_file():
            if self._run() == run:
                stages = read_json(info_path(self.path))["stages"]
            else:
                set_aside(self.path)
        save_weights(self.composite, self.path, {**info, "stages": {**stages, stage: dict(entry)}, "run": run})

    def of_child(self, run: str | None, resume_path: Path) -> dict[str, torch.Tensor] | None:
        """The weights of the child in the file, in host memory; None without a file. Arguments as of `read_back`."""
        if not self.path.is_file():
            return None
        self._check_run(run, resume_path)
        weights = torch.load(self.path, map_location="cpu", weights_only=True)
        return {key: value for key, value in weights.items() if key.startswith(self.prefix)}

    def now(self, prefixes: Iterable[str]) -> dict[str, torch.Tensor]:
        """Copies of the composite's weights whose names begin so."""
        wanted = tuple(prefixes)
        return {key: value.clone() for key, value in self.composite.state_dict().items() if key.startswith(wanted)}

    def read_back(self, run: str | None, resume_path: Path, own: Mapping[str, torch.Tensor] | None = None) -> None:
        """Load the child's weights and leave the rest of the composite as it is.

        Args:
            run: token that the file must bear.
            resume_path: for the text of the error.
            own: the child's weights, where the file may already hold those of a later stage that shares it.

        Raises:
            WeightsError: when the file is of another run, absent or of another network.
        """
        # only this child: on resuming, the file may already hold a later stage, which has a resume file of its own
        kept = {
            key: value.clone() for key, value in self.composite.state_dict().items() if not key.startswith(self.prefix)
        }
        load_weights(self.composite, self.path)
        self._check_run(run, resume_path)
        self.composite.load_state_dict({**kept, **(own or {})}, strict=False)

    def _run(self) -> str | None:
        """The run that the file is of, by its sidecar; also where a kill came between the writing of the two."""
        sidecar = info_path(self.path)
        return read_json(sidecar).get("run") if sidecar.is_file() else None

    def _check_run(self, run: str | None, resume_path: Path) -> None:
        if self._run() != run:
            raise WeightsError(
                problem(
                    f"'{self.path}' was written by another training than '{resume_path}'",
                    "a stage goes on from the weights of its own run",
                    "train without --resume, or with a model_path and output_dir of its own",
                )
            )
