"""What the steps of a certification share; each is run by path, in the packed bundle's folder (see common/certify)."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

# a training as short as can be, by the names that the bundles give their numbers; a bundle has some of these
SHORT = {
    "epochs": 1,
    "pretrain_epochs": 1,
    "locator_epochs": 1,
    "localiser_epochs": 1,
    "liver_epochs": 1,
    "iterations_per_epoch": 2,
    "slices_per_volume": 2,
    "slabs_per_volume": 1,
    "tumour_patches_per_volume": 1,
    "val_interval": 1,
}
_WRAPPED = "RuntimeError: Failed to "  # how a config parser passes on what an expression or a component raised
_ERROR = re.compile(r"^[\w.]*(Error|Exception|Failed)\b.*")


class StepError(RuntimeError):
    """A step has failed; the text says why."""


class Impossible(RuntimeError):
    """A tool says that it can not be done for this bundle, or here; the text is its own."""


class Case:
    """What a step is given.

    Args:
        bundle: the packed bundle, which may be written into.
        work: an empty folder.
        data: a Decathlon folder; None for the data set of the bundle.
    """

    def __init__(self, bundle: Path, work: Path, data: Path | None) -> None:
        self.bundle, self.work, self.data = bundle, work, data

    @property
    def name(self) -> str:
        """Name of the bundle."""
        return self.bundle.name

    @property
    def model(self) -> Path:
        """Its weights."""
        return self.bundle / "models" / "model.pt"

    def config(self, name: str) -> dict[str, Any]:
        """Content of one of its configs."""
        return json.loads((self.bundle / "configs" / f"{name}.json").read_text(encoding="utf-8"))

    def files(self, *names: str) -> list[str]:
        """Paths of its configs."""
        return [str(self.bundle / "configs" / f"{name}.json") for name in names]

    def training_files(self) -> list[str]:
        """Paths of the configs that a federation trains by, from the bundle's folder."""
        rounds = ["federated"] if (self.bundle / "configs" / "federated.json").is_file() else []
        return [f"configs/{name}.json" for name in ["train", *rounds]]

    def short(self) -> dict[str, Any]:
        """Overrides that make a training of it short."""
        known = self.config("train")
        return {key: value for key, value in SHORT.items() if known.get(key) is not None}

    def values(self, **more: Any) -> dict[str, Any]:
        """Overrides that every run of its configs is given: where the data are, and where results go."""
        given = {} if self.data is None else {"dataset_dir": str(self.data)}
        return {**given, "output_dir": str(self.work / "out"), **more}


def tool(case: Case, command: str, *words: str, **overrides: Any) -> str:
    """Run a command of ``python -m monai.bundle`` in the bundle's folder, as a person would, and give back its output.

    Args:
        case: of the step.
        command: ``run``, ``ckpt_export``, ...
        words: further words.
        overrides: ids and their values.

    Raises:
        StepError: when it ends with another status than 0; the text is its last error.
    """
    line = [sys.executable, "-m", "monai.bundle", command, *words]
    for key, value in overrides.items():
        line += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    print("$", *line, flush=True)
    done = subprocess.run(
        line, cwd=case.bundle, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )
    print(done.stdout, flush=True)
    if done.returncode:
        raise StepError(last_error(done.stdout) or f"{command} ended with status {done.returncode}")
    return done.stdout


def last_error(text: str) -> str:
    """The last line of an output that is an error with a reason; empty where there is none.

    >>> last_error("ValueError: two axes\\nRuntimeError: Failed to evaluate ConfigExpression:\\nbye")
    'ValueError: two axes'
    """
    found = [line.strip() for line in text.splitlines() if _ERROR.match(line.strip())]
    reasons = [line for line in found if not line.startswith(_WRAPPED)]
    return (reasons or found or [""])[-1]


def require(holds: bool, told: str) -> None:
    """
    Raises:
        StepError: with this text, where something does not hold.
    """
    if not holds:
        raise StepError(told)


def main(step: Callable[[Case], tuple[str, dict[str, float]]], arguments: Iterable[str] | None = None) -> int:
    """Run a step and tell what came of it in the last line of the output.

    Args:
        step: gives back a phrase with the figure that counts, and figures by name.
        arguments: words of the command line; None for those of this process.

    Returns:
        the exit status.
    """
    parser = argparse.ArgumentParser(description=step.__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args(None if arguments is None else list(arguments))
    case = Case(given.bundle.resolve(), given.work.resolve(), given.data and given.data.resolve())
    # as `python -m monai.bundle` finds a bundle's code, and its children do
    sys.path.insert(0, str(case.bundle))
    os.chdir(case.bundle)
    passed: bool | None = True
    try:
        told, figures = step(case)
    except Impossible as reason:
        passed, told, figures = None, str(reason), {}
    except Exception as error:  # whatever it is, the certification goes on
        traceback.print_exc()
        text = str(error).strip().splitlines() or [""]
        told = text[0] if isinstance(error, StepError) else f"{type(error).__name__}: {text[0]}"
        passed, figures = False, {}
    sys.stderr.flush()
    print("RESULT " + json.dumps({"passed": passed, "told": told, "figures": figures}), flush=True)
    return 1 if passed is False else 0
