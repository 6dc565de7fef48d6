"""A bundle packed, trained for a moment and put before every tool, resumably."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..bundling.archive import MANIFEST
from ..bundling.pack import pack
from ..checks import InputError, WeightsError
from ..files import read_json, sha256, write_json
from .checkout import script_hash
from .environments import BuildError, Built, Environments, clean_variables
from .running import Outcome, run_logged
from .steps import Environment, Step

__all__ = ["Certification"]

OVERLAYS = ("small",)
_RESULTS, _TRAIN = "results.json", "train"
_DATA = """
from monai.bundle import ConfigParser
parser = ConfigParser()
parser.read_config("configs/train.json")
print(parser.get_parsed_content("dataset_dir"))
"""


class _DataError(RuntimeError):
    """The data set of a bundle is not to be had."""


class Certification:
    """The certification of one bundle.

    Its folder holds ``packed/`` (what is certified), a log for each step, and ``results.json``, by which a step that
    passed is not repeated, unless the packed bundle, the environment or the script is another one since.

    Args:
        bundle: folder of the bundle.
        folder: where everything of this bundle goes.
        environments: clean ones.
        steps: all steps there are, the training first.
        kinds: all environments there are.
    """

    def __init__(
        self,
        bundle: Path,
        folder: Path,
        environments: Environments,
        steps: Sequence[Step],
        kinds: Sequence[Environment],
    ) -> None:
        self.bundle, self.folder, self.environments, self.steps = bundle, folder, environments, list(steps)
        self._kinds = {kind.name: kind for kind in kinds}
        path = folder / _RESULTS
        self._kept: dict[str, Any] = read_json(path)["steps"] if path.is_file() else {}
        self._current: dict[str, str] = {}  # keys under which results count now
        self.built: dict[str, Built] = {}

    def run(self, wanted: Sequence[Step], tell: Callable[[str], None]) -> None:
        """Run the steps that are wanted, and before them the training, where its weights are not there.

        Args:
            wanted: of the steps.
            tell: takes a line on what goes on.
        """
        (train,) = (step for step in self.steps if step.name == _TRAIN)
        later = [step for step in wanted if step is not train]
        try:
            self._step(train, self._pack("blank", None), tell)
            if not self._passed(train):
                self._fail(later, "not run, since the training failed", tell)
                return
            packed = self._pack("packed", self.folder / "weights")
            data = self._data(packed, train) if later else None
        except (InputError, WeightsError, _DataError) as error:
            self._fail(later or [train], f"not run: {error}", tell)
            return
        for step in self.steps:
            if step in later:
                self._step(step, packed, tell, data)
            elif step is not train:
                self._recall(step, packed)

    def results(self) -> dict[str, Any]:
        """What is known of the bundle as it is now: version, what was packed, and the outcomes by step."""
        metadata = read_json(self.bundle / "configs" / "metadata.json")
        packed = self.folder / "packed" / self.name / MANIFEST
        known = {name: self._kept[name] for name, key in self._current.items()}
        return {
            "version": metadata.get("version"),
            "overlays": list(OVERLAYS),
            "packed": sha256(packed) if packed.is_file() else None,
            "steps": {step.name: known[step.name] for step in self.steps if step.name in known},
        }

    @property
    def name(self) -> str:
        """The bundle's name."""
        return str(read_json(self.bundle / "configs" / "metadata.json").get("name", self.bundle.name))

    def _pack(self, place: str, weights: Path | None) -> Path:
        """Pack a copy of the bundle, with weights or without, and give back the packed folder."""
        copied = self.folder / "source" / self.name
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(self.bundle, copied, ignore=shutil.ignore_patterns("models", "eval", ".*", "__pycache__"))
        if weights is not None:
            shutil.copytree(weights, copied / "models")
        packed, _ = pack(copied, self.folder / place, without_weights=weights is None, overlays=OVERLAYS)
        shutil.rmtree(copied.parent)
        return packed

    def _data(self, packed: Path, train: Step) -> Path:
        """The data set that the bundle is trained on by default, which its own code makes."""
        built = self._build(train, packed)
        variables = clean_variables(built.python, self.environments.home)
        command = [str(built.python), "-c", _DATA]
        done = subprocess.run(
            command, cwd=packed, env=variables | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True
        )
        told = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
        if done.returncode or not told or not Path(told[-1]).is_dir():
            raise _DataError(f"train.json gives no data set by itself ({told[-1] if told else 'nothing was said'})")
        return Path(told[-1])

    def _build(self, step: Step, packed: Path, make: bool = True) -> Built:
        built = self.environments.get(self._kinds[step.environment], packed, make)
        self.built[step.environment] = built
        return built

    def _step(self, step: Step, packed: Path, tell: Callable[[str], None], data: Path | None = None) -> None:
        """Run a step, unless it passed as everything is now."""
        script = self.environments.root / step.script
        if not script.is_file():
            self._fail([step], f"there is no {step.script}", tell)
            return
        try:
            built = self._build(step, packed)
        except BuildError as error:
            self._fail([step], str(error), tell)
            return
        key = self._key(step, packed, built)
        if self._holds(step, key):
            self._current[step.name] = key
            tell(f"{self.name}: {step.title}: passed before: {self._kept[step.name]['told']}")
            return
        tell(f"{self.name}: {step.title} ...")
        self._note(step, key, built, self._run(step, built, packed, data), tell)

    def _run(self, step: Step, built: Built, packed: Path, data: Path | None) -> Outcome:
        place = self.folder / "work" / step.name
        shutil.rmtree(place, ignore_errors=True)
        copied, work = place / packed.name, place / "work"
        shutil.copytree(packed, copied)
        work.mkdir()
        command = [str(built.python), str(self.environments.root / step.script)]
        command += ["--bundle", str(copied), "--work", str(work)]
        command += ([] if data is None else ["--data", str(data)]) + list(step.arguments)
        variables = clean_variables(built.python, self.environments.home)
        outcome = run_logged(command, copied, variables, self.folder / f"{step.name}.log", 60 * step.minutes)
        if step.name == _TRAIN and outcome.passed:
            outcome = self._keep_weights(copied / "models", outcome)
        if outcome.passed is not False:  # what failed stays to be looked at
            shutil.rmtree(place, ignore_errors=True)
        return outcome

    def _keep_weights(self, models: Path, outcome: Outcome) -> Outcome:
        kept = self.folder / "weights"
        shutil.rmtree(kept, ignore_errors=True)
        names = ("model.pt", "model.json")
        absent = [name for name in names if not (models / name).is_file()]
        if absent:
            return dataclasses.replace(outcome, passed=False, told=f"the training left no models/{absent[0]}")
        kept.mkdir(parents=True)
        for name in names:
            shutil.copyfile(models / name, kept / name)
        return outcome

    def _key(self, step: Step, packed: Path, built: Built) -> str:
        told = [sha256(packed / MANIFEST), built.hash, script_hash(self.environments.root, step, self.steps)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def _recall(self, step: Step, packed: Path) -> None:
        """Count an earlier outcome of a step that is not wanted now, if it is of what is there now."""
        if step.name in self._kept and (self.environments.root / step.script).is_file():
            try:
                key = self._key(step, packed, self._build(step, packed, make=False))
            except BuildError:
                return
            if self._kept[step.name]["key"] == key:
                self._current[step.name] = key

    def _holds(self, step: Step, key: str) -> bool:
        kept = self._kept.get(step.name, {})
        there = step.name != _TRAIN or (self.folder / "weights" / "model.pt").is_file()
        return kept.get("key") == key and kept["passed"] is True and there

    def _passed(self, step: Step) -> bool:
        return step.name in self._current and self._kept[step.name]["passed"] is True

    def _fail(self, steps: Sequence[Step], reason: str, tell: Callable[[str], None]) -> None:
        for step in steps:
            self._note(step, "", None, Outcome(False, reason), tell)

    def _note(self, step: Step, key: str, built: Built | None, outcome: Outcome, tell: Callable[[str], None]) -> None:
        self._current[step.name] = key
        self._kept[step.name] = {
            **dataclasses.asdict(outcome),
            "seconds": round(outcome.seconds, 1),
            "environment": built.hash if built else None,
            "key": key,
        }
        write_json(self.folder / _RESULTS, {"bundle": self.name, "steps": self._kept})
        word = {True: "passed", False: "FAILED", None: "impossible"}[outcome.passed]
        tell(f"{self.name}: {step.title}: {word}: {outcome.told} ({outcome.seconds:.0f} s)")
