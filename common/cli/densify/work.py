"""The steps of ``volseg densify``, each a line or several, none done twice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel

from ...bundling.ids import normal_id
from ...files import read_json
from ..launch import INTERRUPTED
from ..locate import config_file
from ..recipe_table import read_result, write_table
from ..recipes import Recipe
from .folder import Folder, case_of
from .pace import Pace, minutes_text, pace_of, tiles_of
from .steps import FINISH, OVERLAY, SCORE, Line, LineError, case_settings, predict_case, run_line

__all__ = ["Work"]


class Work:
    """What is left to do in a folder.

    Where slices are held out: ``fit`` trains on the others until the score on those held out is flat, ``score`` scores
    the best epoch, ``finish`` goes on from it with all slices at a falling rate, ``predict`` labels the volume by what
    came of that. Where none are, ``fit`` takes all slices and all epochs at a falling rate, and is what predicts.

    Args:
        bundle: the bundle's folder.
        folder: of the round.
        start_from: weights of the round before.
        verbose: show whole tracebacks.
        free: settings that do not decide the result, such as ``device``.
    """

    def __init__(
        self,
        bundle: Path,
        folder: Folder,
        start_from: Path | None = None,
        verbose: bool = False,
        free: Mapping[str, Any] | None = None,
    ) -> None:
        self.bundle, self.folder, self.start_from, self.verbose = bundle, folder, start_from, verbose
        settings = folder.record["settings"]
        self.overlays = tuple(settings.get("overlays", ()))
        self.given = {**settings.get("overrides", {}), **dict(free or {})}
        self.finish_epochs = settings.get("finish_epochs")
        self.held_out = folder.record["held_out"]
        self.path = folder.path

    # -- what is done ----------------------------------------------------------------------------------------------

    def steps(self) -> list[tuple[str, Callable[[], None], str]]:
        """Name of each step, what does it, and what it is for."""
        if self.held_out is None:
            return [
                ("fit", self.fit, "train on all slices"),
                ("predict", self.predict, "label the whole volume"),
            ]
        return [
            ("fit", self.fit, "train, without the slices held out"),
            ("score", self.score, "score on the slices held out"),
            ("finish", self.finish, "train on with all slices"),
            ("predict", self.predict, "label the whole volume"),
        ]

    def run(self) -> None:
        """Do what is left, each step told with what it will take.

        Raises:
            LineError: when a line fails.
        """
        steps = self.steps()
        for number, (name, work, purpose) in enumerate(steps, start=1):
            head = f"Step {number} of {len(steps)}, {name}: {purpose}"
            if self.folder.done(name):
                print(f"{head}: done before.", flush=True)
                continue
            print(f"\n{head}{self._estimate(name)}", flush=True)
            begun = time.perf_counter()
            work()
            self.folder.finish(name, time.perf_counter() - begun)
            _tidy(self.path / name)

    def fit(self) -> None:
        """Train; a training that was stopped goes on."""
        run_line(self._fit_line(), verbose=self.verbose)
        if self.held_out is None:
            self._copy_weights()

    def score(self) -> None:
        """Score the best epoch on the slices held out, and keep what it makes of the volume."""
        line = Line(self.bundle, ("train", "evaluate", OVERLAY, *self.overlays, SCORE), self._entries("fit"))
        run_line(line, verbose=self.verbose)

    def finish(self) -> None:
        """Train on with all slices."""
        if self.finish_epochs == 0:
            self._copy_weights()
            return
        epochs = {} if self.finish_epochs is None else {"epochs": self.finish_epochs}
        entries = self._entries("finish", without=FINISH) | {"model_path": str(self.path / "model.pt")}
        fixed = {**epochs, "held_out": None, "start_from": str(self.path / "fit" / "model.pt"), "resume": True}
        run_line(Line(self.bundle, ("train", OVERLAY, *self.overlays, FINISH), entries, fixed), verbose=self.verbose)

    def predict(self) -> None:
        """Label the whole volume."""
        place, model = self.path / "predict", self.path / "model.pt"
        predict_case(self.bundle, self.case, model, place, self._entries("predict"), self.overlays, None, self.verbose)

    def rivals(self, recipes: list[Recipe]) -> tuple[str, list[str]]:
        """Train and score rivals on the same slices, and write their table; one that fails does not end the others.

        Args:
            recipes: the rivals; those that are scored already are not scored again.

        Returns:
            the table, and why rivals are missing in it.

        Raises:
            LineError: when it was interrupted.
        """
        missing = []
        for recipe in recipes:
            if not self.folder.done(_place(recipe)):
                print(f"\nRival: {recipe.name}", flush=True)
                try:
                    self._rival(recipe)
                except LineError as error:
                    if error.status == INTERRUPTED:
                        raise
                    missing.append(f"{recipe.name}: {error}")
        results = [read_result(self.path / "fit", "densify", "held out")]
        results += [
            read_result(self.path / _place(one), one.name, "held out")
            for one in recipes
            if self.folder.done(_place(one))
        ]
        remarks = [
            "Scores are those on the slices held out. The network is the one that was not trained on them; its best "
            "epoch was chosen by its score there, which favours it over rivals that learn nothing."
        ]
        remarks += ["Missing:\n\n" + "\n".join(f"- {one}" for one in missing)] if missing else []
        title = "Filled up by `densify` and by its rivals"
        return write_table(results, self.path / "rivals", title, remarks), missing

    def _rival(self, recipe: Recipe) -> None:
        begun, place = time.perf_counter(), _place(recipe)
        own = {normal_id(name) for one in recipe.overlays for name in read_json(config_file(self.bundle, one))}
        entries = {name: value for name, value in self._entries(place).items() if normal_id(name) not in own}
        entries |= {"model_path": str(self.path / place / "model.pt")}
        names = (OVERLAY, *self.overlays, *recipe.overlays)
        train = Line(self.bundle, ("train", *names), entries, {**recipe.settings, "resume": True})
        if train.value("epochs"):
            run_line(train, verbose=self.verbose)
        run_line(Line(self.bundle, ("train", "evaluate", *names), entries, recipe.settings), verbose=self.verbose)
        self.folder.finish(place, time.perf_counter() - begun)
        _tidy(self.path / place)

    # -- lines -----------------------------------------------------------------------------------------------------

    @property
    def case(self) -> Path:
        """The Decathlon folder of the case."""
        return self.path / "data"

    def _entries(self, place: str, without: str = "") -> dict[str, Any]:
        """Config entries of a line whose results go to a folder.

        Args:
            place: the folder.
            without: an overlay that keeps its own entries.
        """
        own = read_json(config_file(self.bundle, without)) if without else {}
        given = {name: value for name, value in self.given.items() if normal_id(name) not in own}
        entries = {**case_settings(self.bundle, self.case, self.overlays), "held_out": self.held_out, **given}
        return entries | {"output_dir": str(self.path / place), "model_path": str(self.path / "fit" / "model.pt")}

    def _fit_line(self) -> Line:
        fixed = {"start_from": None if self.start_from is None else str(self.start_from), "resume": True}
        base = ("train", OVERLAY, *self.overlays)
        if self.held_out is not None:
            return Line(self.bundle, base, self._entries("fit"), fixed)
        epochs = {"epochs": self.given.get("epochs", Line(self.bundle, base).ids()["epochs"])}
        return Line(self.bundle, (*base, FINISH), self._entries("fit", without=FINISH), {**fixed, **epochs})

    def _copy_weights(self) -> None:
        for name in ("model.pt", "model.json"):
            shutil.copyfile(self.path / "fit" / name, self.path / name)

    # -- time ------------------------------------------------------------------------------------------------------

    @cached_property
    def _pace(self) -> Pace | None:
        return pace_of(self._fit_line())

    @cached_property
    def _tiles(self) -> int:
        line = self._fit_line()
        size = nibabel.load(self.case / "labelsTr" / f"{case_of(self.folder.record)}.nii.gz").shape
        return tiles_of(size, line.value("patch_size"), line.value("tile_overlap"))

    def _estimate(self, step: str) -> str:
        if step == "finish" and self.finish_epochs == 0:
            return ": left out, as asked for."
        if self._pace is None:
            return "."
        if step in ("score", "predict"):
            return f" (about {minutes_text(self._pace.prediction(self._tiles))})."
        line = self._fit_line()
        epochs = int(line.value("epochs"))
        validations = -(-epochs // int(line.value("val_interval"))) if self.held_out is not None else 0
        if step == "finish":
            own = read_json(config_file(self.bundle, FINISH))["epochs"]
            epochs, validations = int(own if self.finish_epochs is None else self.finish_epochs), 0
        seconds = self._pace.training(epochs * int(line.value("iterations_per_epoch")), validations, self._tiles)
        early = "; it ends earlier when the score on the slices held out no longer rises" if validations else ""
        return f" ({'at most ' if validations else 'about '}{minutes_text(seconds)} for {_counted(epochs)}{early})."


def _counted(epochs: int) -> str:
    return f"{epochs} epoch{'' if epochs == 1 else 's'}"


def _place(recipe: Recipe) -> str:
    """Where a rival's weights and scores lie."""
    return f"rivals/{recipe.folder}"


def _tidy(place: Path) -> None:
    """Remove what only serves to go on with a training, and is several times as large as its weights.

    Once it is noted that the step is done: before that, a line that is given again would train anew.
    """
    for path in place.glob("resume_*.pt"):
        path.unlink()
