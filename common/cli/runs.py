"""Recipes of a bundle trained and evaluated in the same variants, each run in processes of its own, resumably."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..bundling.ids import check_overrides, merge, normal_id
from ..checks import InputError, problem
from ..data.decathlon import read_dataset
from ..files import check_writable, read_json, write_json
from .excerpt import user_error
from .launch import bundle_command, shown, terminated_as_interrupted
from .locate import config_file
from .recipes import Recipe, folder_name

__all__ = ["Runs", "Variant", "execute"]

_PLACES = ("bundle_root", "dataset_dir", "output_dir", "model_path", "resume")
_OPTIONS = ("overlays", "jobs", "out", "verbose")  # of the commands that run them


@dataclass(frozen=True)
class Variant:
    """What sets the runs of one recipe apart: the fold that is held out, the volume, how much is labelled.

    Args:
        name: as it is shown.
        settings: config entries; they come over those of recipes.
        folder: where its runs lie in the folder of their recipe; made of the name by default.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder or folder_name(self.name))


class Runs:
    """Where the runs of a comparison lie, what their lines are, and which of them are done.

    A run is a recipe in a variant. Rows of one table share all else: data, overlays and what is given for all.

    Args:
        bundle: its folder.
        out: the folder of everything that is written: ``RECIPE/VARIANT`` for each run.
        data: a Decathlon folder; None for that of the configs.
        overlays: configs laid over ``train.json`` for every recipe, in order.
        given: config entries for every recipe, but for those that a recipe sets itself.
        jobs: processes at a time; they share the cores.
        own: names of entries that each run has of its own, so that they are not given.
        plan: what else the rows of one table share, to be remembered in `out`.

    Raises:
        InputError: for a number of processes below 1.
    """

    def __init__(
        self,
        bundle: Path,
        out: str | os.PathLike[str],
        data: str | os.PathLike[str] | None = None,
        overlays: Sequence[str] = (),
        given: Mapping[str, Any] | None = None,
        jobs: int = 1,
        own: Iterable[str] = (),
        plan: Mapping[str, Any] | None = None,
    ) -> None:
        self.bundle, self.out, self.data = bundle, Path(out).resolve(), None if data is None else Path(data).resolve()
        self.overlays, self.given, self.jobs = list(overlays), dict(given or {}), jobs
        self._own, self._plan = {normal_id(name) for name in (*_PLACES, *own)}, dict(plan or {})
        if jobs < 1:
            raise InputError(problem(f"jobs is {jobs}", "it must be 1 or more", "pass for example --jobs 1"))
        self._environment = dict(os.environ)
        if jobs > 1:
            self._environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        self._lock, self._running, self._ended = threading.Lock(), set(), False

    @functools.cached_property
    def planned(self) -> dict[str, Any]:
        """The entries of ``train.json`` with overlays and what is given laid over."""
        return {**merge(self.configs(("train",))), **self.given}

    def configs(self, base: Iterable[str], recipe: Recipe | None = None) -> list[Path]:
        """The config files of a line."""
        return [
            config_file(self.bundle, name) for name in (*base, *self.overlays, *(recipe.overlays if recipe else ()))
        ]

    def check(self, recipes: Sequence[Recipe], variants: Sequence[Variant]) -> None:
        """Refuse what no run could use, and an output folder whose results were made under other settings."""
        if self.data is not None:
            read_dataset(self.data)
        for recipe in recipes:
            settings = {**self.given, **recipe.settings}
            if fixed := [name for name in settings if normal_id(name) in self._own]:
                came = f"'{fixed[0]}' was set for {recipe.name}"
                raise InputError(problem(came, "each run of a comparison has its own", "leave it out"))
            settings |= {name: value for variant in variants for name, value in variant.settings.items()}
            for base in (("train",), ("train", "evaluate")):
                options = {name: None for name in _OPTIONS if name not in settings}  # told where misspelt
                check_overrides({**options, **merge(self.configs(base, recipe))}, settings)
        plan = {"bundle": self.bundle.name, "data": None if self.data is None else str(self.data), **self._plan}
        plan |= {"overlays": self.overlays, "set": self.given}
        self._check_same(self.out / "plan.json", plan)
        for recipe, variant in ((recipe, variant) for recipe in recipes for variant in variants):
            self._check_same(self.folder(recipe, variant) / "run.json", self._told(recipe, variant))
        check_writable(self.out)
        write_json(self.out / "plan.json", plan)

    @staticmethod
    def _check_same(path: Path, content: Mapping[str, Any]) -> None:
        if path.is_file() and (before := read_json(path)) != (now := json.loads(json.dumps(content))):
            raise InputError(
                problem(
                    f"'{path.parent}' holds runs of {before}, not {now}",
                    "the rows of one table share their data, folds and settings",
                    "give the same again, or another folder",
                )
            )

    @staticmethod
    def _told(recipe: Recipe, variant: Variant) -> dict[str, Any]:
        return {"overlays": list(recipe.overlays), "set": {**recipe.settings, **variant.settings}}

    def label(self, recipe: Recipe, variant: Variant) -> str:
        """A run, named."""
        return f"{recipe.name}, {variant.name}"

    def folder(self, recipe: Recipe, variant: Variant) -> Path:
        """Where a run's weights, logs and results are."""
        return self.out / recipe.folder / variant.folder

    def done(self, recipe: Recipe, variant: Variant) -> bool:
        """Whether a run was trained to the end and all its cases were scored."""
        folder = self.folder(recipe, variant)
        files = [folder / name for name in ("trained.json", "evaluated.json", "metrics.json")]
        return all(file.is_file() for file in files) and not read_json(folder / "metrics.json")["failed"]

    def kept(self, recipe: Recipe) -> dict[str, Any]:
        """What was given for every recipe and is not for this one, since its overlays set it: name, and their value."""
        overlays = [read_json(config_file(self.bundle, name)) for name in recipe.overlays]
        own = {normal_id(name): value for part in (*overlays, recipe.settings) for name, value in part.items()}
        return {name: own[normal_id(name)] for name in self.given if normal_id(name) in own}

    def command(self, recipe: Recipe, variant: Variant, *base: str) -> list[str]:
        """The line that trains or evaluates a run."""
        kept, folder = self.kept(recipe), self.folder(recipe, variant)
        settings = {name: value for name, value in self.given.items() if name not in kept} | dict(recipe.settings)
        settings |= {} if self.data is None else {"dataset_dir": self.data}
        settings |= {"bundle_root": self.bundle, "output_dir": folder, "model_path": folder / "model.pt"}
        settings |= dict(variant.settings)
        return bundle_command(self.configs(base, recipe), settings | ({"resume": True} if base == ("train",) else {}))

    def run(self, recipe: Recipe, variant: Variant) -> None:
        """Train and evaluate a run, unless that is done. A recipe of 0 epochs trains nothing, and is scored as it is.

        Raises:
            RuntimeError: when one of both fails; the text is short and names the log.
        """
        folder = self.folder(recipe, variant)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "run.json", self._told(recipe, variant))
        if not (folder / "trained.json").is_file():
            resumed, begun = (folder / "train.log").is_file(), time.perf_counter()
            self._process(self.command(recipe, variant, "train"), folder / "train.log")
            write_json(folder / "trained.json", {"seconds": time.perf_counter() - begun, "resumed": resumed})
            for path in folder.glob("resume_*.pt"):  # of no more use, and several times as large as the weights
                path.unlink()
        if not self.done(recipe, variant):
            begun = time.perf_counter()
            self._process(self.command(recipe, variant, "train", "evaluate"), folder / "evaluate.log")
            write_json(folder / "evaluated.json", {"seconds": time.perf_counter() - begun})

    def _process(self, command: list[str], log: Path) -> None:
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(f"$ {shown(command)}\n")
            stream.flush()
            with self._lock:
                if self._ended:
                    raise RuntimeError("stopped")
                process = subprocess.Popen(command, env=self._environment, stdout=stream, stderr=stream)
                self._running.add(process)
            status = process.wait()
            with self._lock:
                self._running.discard(process)
        if status:
            text = log.read_text(encoding="utf-8", errors="replace").rsplit("\n$ ", 1)[-1].rstrip()
            told = ": ".join(user_error(text) or [text.splitlines()[-1]])
            raise RuntimeError(f"ended with {status}: {told[:400]} ({log})")

    def end(self) -> None:
        """Stop what is running; a training that was stopped can go on."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()


def execute(runs: Runs, tasks: Sequence[tuple[Recipe, Variant]]) -> dict[str, str]:
    """Run the tasks, `runs.jobs` at a time; one that fails does not end the others.

    An interrupt, or the signal to terminate, stops all of them.

    Args:
        runs: the comparison.
        tasks: recipes with their variants.

    Returns:
        why runs failed, by their names.

    Raises:
        KeyboardInterrupt: when it was interrupted.
    """
    failures: dict[str, str] = {}
    with (
        terminated_as_interrupted(),
        ThreadPoolExecutor(runs.jobs) as pool,
        tqdm(total=len(tasks), unit="run", smoothing=0, disable=None) as bar,
    ):
        waiting = {pool.submit(runs.run, *task): runs.label(*task) for task in tasks}
        try:
            for future in as_completed(waiting):
                name, error = waiting[future], future.exception()
                if error is not None:
                    failures[name] = str(error)
                bar.write(f"{name}: {error or 'done'}", file=sys.stdout)
                bar.update()
        except KeyboardInterrupt:
            runs.end()
            pool.shutdown(cancel_futures=True)
            raise
    return failures
