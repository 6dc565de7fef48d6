"""The experiments of a bundle's paper as the command line runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bundling.experiments import EXPERIMENTS, faults, run_settings
from ..checks import InputError, nearest, problem
from ..data.decathlon import patient_of, read_dataset
from ..files import read_json
from .locate import config_file
from .recipes import Recipe
from .runs import Variant

__all__ = ["Experiment", "read_experiments"]


@dataclass(frozen=True)
class Experiment:
    """One table of the paper: recipes in variants, and the figures that the paper has for them.

    Args:
        name: of the experiment, and of its folder.
        told: its entry in ``docs/experiments.json``.
        counts: lengths of the table's series where they are not the paper's, by the option that gave them.
    """

    name: str
    told: Mapping[str, Any]
    counts: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.told[key]

    @property
    def axes(self) -> list[Mapping[str, Any]]:
        """Rows, and columns where there are some."""
        return [self.told[name] for name in ("rows", "columns") if name in self.told]

    def _settings(self, axis: str) -> dict[str, dict[str, Any]]:
        told = self.told.get(axis)
        return {"": {}} if told is None else run_settings(told, self.counts.get(told.get("option", "")))

    @property
    def rows(self) -> list[str]:
        """Names of the rows."""
        return list(self._settings("rows"))

    @property
    def columns(self) -> list[str]:
        """Names of the columns below each recipe; one without a name where recipes are the only columns."""
        return list(self._settings("columns"))

    @property
    def recipes(self) -> list[Recipe]:
        """Its recipes, by the names that the table has for them."""
        return [
            Recipe(name, tuple(own.get("overlays", ())), own.get("settings", {}))
            for name, own in self.told["recipes"].items()
        ]

    def variant(self, row: str, column: str, phantom: bool = False) -> Variant:
        """The runs of one row (and column).

        Args:
            row: its name.
            column: its name, or the empty text.
            phantom: whether the data are those of the configs.
        """
        settings = {**self.told.get("settings", {}), **(self.told.get("phantom", {}) if phantom else {})}
        settings |= {**self._settings("rows")[row], **self._settings("columns")[column]}
        return Variant(f"{row}, {column}" if column else row, settings)

    def cells(self) -> Iterator[tuple[str, str]]:
        """Rows and columns, row by row."""
        return ((row, column) for row in self.rows for column in self.columns)

    @property
    def published(self) -> Experiment:
        """The experiment with the paper's own rows and columns."""
        return Experiment(self.name, self.told)

    def paper(self, recipe: str, row: str, column: str = "") -> float | None:
        """The paper's figure, where it has one."""
        figure = self.told["paper"].get(recipe, {}).get(row)
        return figure.get(column) if isinstance(figure, Mapping) else figure

    def own(self, bundle: Path) -> set[str]:
        """Names of the entries that the experiment sets, so that a caller does not."""
        overlays = [read_json(config_file(bundle, name)) for name in self.told.get("overlays", ())]
        variants = [self.variant(*cell) for cell in self.cells()]
        return {name for part in (*overlays, *(one.settings for one in variants)) for name in part}

    def sized(self, options: Mapping[str, int], data: Path | None) -> Experiment:
        """The experiment with as many folds or volumes as are wanted.

        Args:
            options: numbers, by the names of options; those that are no option of this experiment are left out.
            data: a Decathlon folder; None for that of the configs.

        Raises:
            InputError: for a number that is too small, or larger than the data allow.
        """
        counts = {axis["option"]: options[axis["option"]] for axis in self.axes if axis.get("option") in options}
        for axis in (axis for axis in self.axes if "option" in axis):
            count, option = counts.get(axis["option"], axis["count"]), axis["option"]
            if count < (least := axis.get("least", 1)):
                came = f"{option} is {count} for {self.name}"
                raise InputError(problem(came, f"it must be {least} or more", f"pass --{option} {least}"))
            there = _most(axis.get("limit"), data)
            if there is not None and count > there:
                came = f"'{data}' has {there} {axis['limit']} and {self.name} wants {count}"
                remedy = f"pass --{option} {there}" if there >= least else "name another data set"
                raise InputError(problem(came, f"there can not be more {option} than {axis['limit']}", remedy))
        return Experiment(self.name, self.told, counts)


def _most(limit: str | None, data: Path | None) -> int | None:
    """How many cases or patients the data have; None where that is no limit, or not known here."""
    if limit is None or data is None:
        return None
    _, content = read_dataset(data)
    entries = content.get("training", [])
    return len(entries) if limit == "cases" else len({patient_of(entry, content) for entry in entries})


def read_experiments(bundle: Path, names: Sequence[str] = ()) -> list[Experiment]:
    """The experiments of a bundle's paper.

    Args:
        bundle: its folder.
        names: of those that are wanted; none, or ``all`` among them, for every one.

    Raises:
        InputError: when the bundle has none, or none of such a name, or the file is not in order.
    """
    path = bundle / EXPERIMENTS
    if not path.is_file():
        came = f"the bundle {bundle.name} has no {EXPERIMENTS}"
        raise InputError(problem(came, "the paper's experiments are written down there", "name another bundle"))
    content = read_json(path)
    for place, came, remedy in faults(content):
        raise InputError(problem(f"'{path}': {place}", came, remedy))
    for name in names:
        if name not in (*content, "all"):
            came = f"the bundle {bundle.name} has no experiment '{name}'"
            near = nearest(name, content)
            remedy = f"write '{near}'" if near else "name one of these"
            raise InputError(problem(came, f"it has {', '.join(content)}", remedy))
    wanted = content if not names or "all" in names else dict.fromkeys(names)
    return [Experiment(name, content[name]) for name in wanted]
