"""The lines of ``volseg densify``: train on a case of which some voxels are labelled, then label all of it."""

from __future__ import annotations

import ast
import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel

from ...bundling.ids import config_ids, merge, normal_id
from ...checks import InputError, problem
from ...data.decathlon import read_dataset
from ...files import case_name
from ..excerpt import user_error
from ..launch import bundle_command, launch, shown
from ..locate import config_file, finds_itself

__all__ = [
    "FINISH",
    "OVERLAY",
    "SCORE",
    "UNCERTAINTY",
    "Line",
    "LineError",
    "as_read",
    "case_settings",
    "densify_once",
    "patch_for",
    "predict_case",
    "run_line",
]

OVERLAY = "densify"
FINISH, SCORE, UNCERTAINTY = "finish", "score", "uncertainty"

_STEP, _LEAST = 8, 16  # three poolings of 2; below 16 the lowest level has one voxel, which can not be normalised


@dataclass(frozen=True)
class Line:
    """One line of ``python -m monai.bundle run``.

    Args:
        bundle: its folder.
        configs: names of its configs, those of a command first.
        settings: overrides; those that the first config does not have are for other lines, and left out.
        fixed: overrides that come over all others.
    """

    bundle: Path
    configs: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The config files, later ones over earlier ones."""
        return [config_file(self.bundle, name) for name in self.configs]

    def ids(self) -> dict[str, Any]:
        """Every id of its configs, with what it holds."""
        return config_ids(merge(self.files))

    def overrides(self) -> dict[str, Any]:
        """The overrides that it is given."""
        known = merge(self.files[:1])
        chosen = {name: value for name, value in self.settings.items() if normal_id(name).split("::")[0] in known}
        own = {} if finds_itself(self.bundle) else {"bundle_root": str(self.bundle)}
        return {**own, **chosen, **self.fixed}

    def value(self, name: str) -> Any:
        """What an entry is in this line, as Python reads it."""
        return as_read({**self.ids(), **self.overrides()}[name])

    def command(self) -> list[str]:
        """The argument list."""
        return bundle_command(self.files, self.overrides())


def as_read(value: Any) -> Any:
    """What a config entry is that came as text from a command line.

    >>> as_read("[1, 2]"), as_read("None"), as_read("cpu"), as_read(3)
    ([1, 2], None, 'cpu', 3)
    """
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value


def run_line(line: Line, log: Path | None = None, verbose: bool = False) -> None:
    """Run a line, streamed, or quietly into a log.

    Args:
        line: what to run.
        log: file that its output is added to; None prints it.
        verbose: leave printed output as it is, tracebacks and all.

    Raises:
        LineError: when it fails; what a user can mend was printed, or, with a log, is in the error's text.
    """
    command = line.command()
    if log is None:
        if status := launch(command, verbose):
            raise LineError(status)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as stream:
        stream.write(f"$ {shown(command)}\n")
        stream.flush()
        status = subprocess.run(command, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL).returncode
    if status:
        text = log.read_text(encoding="utf-8", errors="replace").rsplit("\n$ ", 1)[-1].rstrip()
        told = ": ".join(user_error(text) or [text.splitlines()[-1]])
        raise LineError(status, f"ended with {status}: {told[:400]} ({log})")


class LineError(RuntimeError):
    """A line that ended with a status other than 0.

    Args:
        status: the exit status.
        text: why, where that was not printed.
    """

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text or f"ended with {status}")
        self.status, self.text = status, text


def patch_for(size: Sequence[int], like: Sequence[int] = (48, 48, 48)) -> list[int]:
    """The patch that a network of three poolings is trained with on a volume, of about as many voxels as another patch.

    Axes are multiples of 8, none above the volume's own, rounded up; what a thin axis leaves goes to the others.

    Args:
        size: voxels of the volume along its three axes.
        like: the other patch.

    >>> patch_for((100, 100, 100)), patch_for((30, 240, 240)), patch_for((20, 24, 500))
    ([48, 48, 48], [32, 56, 56], [24, 24, 192])
    """
    limits = [max(_LEAST, -(-int(voxels) // _STEP) * _STEP) for voxels in size]
    patch, left, axes = [0, 0, 0], float(math.prod(like)), sorted(range(3), key=lambda axis: limits[axis])
    while axes:
        side = max(_LEAST, round(left ** (1 / len(axes)) / _STEP) * _STEP)
        if limits[axes[0]] > side:  # then none of the others is shorter
            for axis in axes:
                patch[axis] = side
            break
        patch[axes[0]] = limits[axes[0]]
        left /= limits[axes.pop(0)]
    return patch


def case_settings(bundle: Path, case_folder: str | os.PathLike[str], overlays: Sequence[str] = ()) -> dict[str, Any]:
    """The config entries that a case decides: where it lies, its channels and classes, a patch that fits it.

    Args:
        bundle: its folder; the patch has about as many voxels as that of its configs.
        case_folder: a Decathlon folder of one case; ``labels`` of its ``dataset.json`` names classes 0 .. K - 1 and,
            last, K as unlabelled, ``modality`` the channels.
        overlays: more overlays of the bundle.

    Raises:
        InputError: for a folder that is no data set, or of another number of cases, or with fewer than two classes.
    """
    folder, content = read_dataset(case_folder)
    entries, labels = content.get("training", []), content.get("labels") or {}
    if len(entries) != 1 or len(labels) < 3:
        came = f"'{folder}' lists {len(entries)} cases and {max(len(labels) - 1, 0)} classes"
        rule = "it must hold one case, whose labels are two classes or more and, last, the unlabelled"
        raise InputError(problem(came, rule, "make it with volseg densify"))
    names = [labels[str(number)] for number in range(len(labels) - 1)]
    patch = Line(bundle, ("train", OVERLAY, *overlays)).value("patch_size")
    return {
        "dataset_dir": str(case_folder),
        "in_channels": max(len(content.get("modality") or {}), 1),
        "num_classes": len(names),
        "class_names": names,
        "ignore_index": len(names),
        "patch_size": patch_for(nibabel.load(folder / entries[0]["image"]).shape[:3], patch),
    }


def densify_once(
    bundle: str | os.PathLike[str],
    case_folder: str | os.PathLike[str],
    place: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = None,
    start_from: str | os.PathLike[str] | None = None,
    log: str | os.PathLike[str] | None = None,
    overlays: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Train on all that is labelled of a case, at a falling rate, and label the whole of it: two lines.

    Args:
        bundle: its folder.
        case_folder: see :func:`case_settings`.
        place: folder for ``model.pt``, which can be the next call's `start_from`, and for what is predicted.
        settings: config entries such as ``epochs``; each line takes those that it has. By default a training from
            random weights has the epochs of ``densify.json``, one that goes on those of ``finish.json``.
        start_from: weights to start from; None for random ones.
        log: file that the output of both lines is added to; None prints it.
        overlays: more overlays of the bundle.

    Returns:
        the files of the label (classes 0 .. K - 1) and of the uncertainty (0 to 1), on the grid of the case.

    Raises:
        LineError: when a line fails.
        InputError: see :func:`case_settings`.
    """
    bundle, place, log = Path(bundle), Path(place), None if log is None else Path(log)
    entries = {**case_settings(bundle, case_folder, overlays), **dict(settings or {})}
    if start_from is None:  # the overlay's own number is that of a training that goes on
        entries = {"epochs": Line(bundle, ("train", OVERLAY, *overlays)).ids()["epochs"], **entries}
    entries |= {"output_dir": str(place), "model_path": str(place / "model.pt")}
    run_line(Line(bundle, ("train", OVERLAY, *overlays, FINISH), entries, {"start_from": start_from}), log)
    return predict_case(bundle, case_folder, place / "model.pt", place, entries, overlays, log)


def predict_case(
    bundle: Path,
    case_folder: str | os.PathLike[str],
    model: Path,
    place: Path,
    settings: Mapping[str, Any],
    overlays: Sequence[str] = (),
    log: Path | None = None,
    verbose: bool = False,
) -> tuple[Path, Path]:
    """Label a case with weights: one line.

    Args:
        bundle: its folder.
        case_folder: see :func:`case_settings`.
        model: the weights.
        place: folder of the results.
        settings: config entries; the line takes those that it has.
        overlays: more overlays, those of the training.
        log, verbose: see :func:`run_line`.

    Returns:
        the files of the label and of the uncertainty.
    """
    image = Path(case_folder) / read_dataset(case_folder)[1]["training"][0]["image"]
    fixed = {"dataset_dir": str(image), "output_dir": str(place), "model_path": str(model)}
    fixed["metadata"] = None  # the weights are those of this very image, not of the paper's
    run_line(Line(bundle, ("inference", OVERLAY, *overlays, UNCERTAINTY), settings, fixed), log, verbose)
    name = case_name(image)
    return place / f"{name}_seg.nii.gz", place / f"{name}_uncertainty.nii.gz"
