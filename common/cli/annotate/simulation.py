"""Annotation pretended: slices are taken from a label as an annotator would draw them, by several strategies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...checks import InputError, problem
from ...files import atomic_path, check_writable, read_json, write_json
from ...geometry.next_slice import even_planes, random_planes, rank_planes
from ...geometry.planes import on_planes

__all__ = ["START", "STRATEGIES", "Known", "Plan", "Simulation", "class_ious"]

STRATEGIES = ("gain", "random", "even")
START = "start"
_TRIES = 100  # draws of the slices to start with, until they show every class

Planes = list[list[int]]
# drawn label, folder, folder of the round before -> label, uncertainty
Segment = Callable[[np.ndarray, Path, "Path | None"], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Known:
    """What is known of a volume, and which part of it may be drawn.

    Args:
        label: classes 0 .. K - 1, X Y Z, and K where nothing is known.
        values: the user's label value of each class.
        spacing: edges of a voxel along each array axis.
        candidates: planes per array axis that may be drawn.
        held_out: planes per array axis that are for scoring alone; None: all that is known and not drawn is scored.
        background: class that is no foreground, or None.
    """

    label: np.ndarray
    values: tuple[int, ...]
    spacing: tuple[float, float, float]
    candidates: Planes
    held_out: Planes | None = None
    background: int | None = None

    @property
    def unknown(self) -> int:
        """K, the label of voxels that are not known."""
        return len(self.values)

    def drawn(self, planes: Planes) -> np.ndarray:
        """What an annotator of these planes draws: the label there, K elsewhere."""
        return np.where(on_planes(self.label.shape, planes), self.label, self.unknown).astype(np.uint8)

    def scored(self, planes: Planes) -> np.ndarray:
        """The voxels that are scored when these planes are drawn (by any strategy), X Y Z."""
        known = (self.label != self.unknown) & ~on_planes(self.label.shape, planes)
        return known if self.held_out is None else known & on_planes(self.label.shape, self.held_out)


@dataclass(frozen=True)
class Plan:
    """What is simulated.

    Args:
        start: planes per array axis that everything starts from.
        rounds: how often planes are added.
        add: planes added at a time.
        strategies: of :data:`STRATEGIES`.
        repeats: runs of the whole, each from other planes.
        axes: array axes across which planes are added.
        seed: of all draws.
    """

    start: tuple[int, int, int] = (1, 1, 1)
    rounds: int = 4
    add: int = 3
    strategies: tuple[str, ...] = STRATEGIES
    repeats: int = 3
    axes: tuple[int, ...] = (0, 1, 2)
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.strategies if name not in STRATEGIES]
        if unknown or not self.strategies or len(set(self.strategies)) < len(self.strategies):
            came = f"the strategies are {', '.join(self.strategies) or 'none'}"
            raise InputError(problem(came, f"they are some of {', '.join(STRATEGIES)}, each once", "name these"))
        if len(self.start) != 3 or min(self.start) < 0 or not any(self.start):
            came = f"start is {self.start}"
            raise InputError(problem(came, "it is a number of slices for each axis, not all 0", "pass --start 1,1,1"))
        if min(self.rounds, self.add, self.repeats) < 1:
            came = f"rounds is {self.rounds}, add {self.add} and repeats {self.repeats}"
            raise InputError(problem(came, "each is 1 or more", "pass for example --rounds 4 --add 3 --repeats 3"))


def class_ious(predicted: np.ndarray, label: np.ndarray, scored: np.ndarray, classes: int) -> list[float | None]:
    """Intersection over union of each class on the voxels scored; None for a class in neither.

    Args:
        predicted: classes, X Y Z.
        label: classes, X Y Z.
        scored: X Y Z, true where it counts.
        classes: K; both are below K where it counts.

    >>> class_ious(np.array([0, 1, 1]), np.array([0, 0, 1]), np.ones(3, bool), 3)
    [0.5, 0.5, None]
    """
    table = np.zeros(classes**2, np.int64)
    for of_label, of_predicted, where in zip(label, predicted, scored, strict=True):  # counting takes wide numbers
        table += np.bincount(of_label[where].astype(np.int64) * classes + of_predicted[where], minlength=classes**2)
    table = table.reshape(classes, classes)
    hits, union = table.diagonal(), table.sum(0) + table.sum(1) - table.diagonal()
    return [float(hit / of) if of else None for hit, of in zip(hits, union, strict=True)]


@dataclass
class Simulation:
    """The rounds of a simulation, each told in a file of its own, so that a line that is given again goes on.

    Args:
        known: the volume.
        plan: what is simulated.
        segment: fills the volume up from what is drawn; it gets the drawn label (X Y Z, K where nothing is drawn), a
            folder that is its own, and that of the round before or None, and returns label and uncertainty, X Y Z.
        out: the folder of everything that is written.
        about: what else decides the results: fingerprints, the segmenter and its settings.
    """

    known: Known
    plan: Plan
    segment: Segment
    out: Path
    about: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what can not be simulated, and a folder whose rounds were made in another way."""
        known, plan = self.known, self.plan
        offered = [len(of_axis) for of_axis in known.candidates]
        if any(wanted > there for wanted, there in zip(plan.start, offered, strict=True)):
            came = f"start is {plan.start} and {tuple(offered)} slices may be drawn across x, y and z"
            raise InputError(problem(came, "there can not be more slices than are labelled", "pass a smaller --start"))
        here = {**self.about, **asdict(plan)}
        here = {name: list(value) if isinstance(value, tuple) else value for name, value in here.items()}
        path = self.out / "simulation.json"
        if path.is_file() and (before := read_json(path)) != here:
            other = [name for name in {**before, **here} if before.get(name) != here.get(name)]
            raise InputError(
                problem(
                    f"'{self.out}' holds a simulation with another {', '.join(other)}",
                    "all rounds of one simulation share image, label and settings",
                    "give the same again, or another folder (--out)",
                )
            )
        check_writable(self.out)
        write_json(path, here)

    def tasks(self) -> list[tuple[int, str, int]]:
        """Repeat, strategy and round of everything to do, repeat by repeat and in it round by round."""
        added = [(strategy, number + 1) for number in range(self.plan.rounds) for strategy in self.plan.strategies]
        return [(repeat, *one) for repeat in range(self.plan.repeats) for one in [(START, 0), *added]]

    def record(self, repeat: int, strategy: str, number: int) -> dict[str, Any] | None:
        """What a round has told, or None where it was not done."""
        path, answer = self._path(repeat, strategy, number), self._answer(repeat, strategy, number)
        return read_json(path) if path.is_file() and answer.is_file() else None

    def records(self) -> list[dict[str, Any]]:
        """What all rounds that were done have told, in order."""
        return [record for task in self.tasks() if (record := self.record(*task)) is not None]

    def rescore(self) -> None:
        """Score all strategies of a repeat and round on the same voxels: those that none of them has drawn.

        Else one that draws what is hard would be relieved of it, and do better without any better segmentation.
        """
        together: dict[tuple[int, int], list[dict[str, Any]]] = {}
        for record in self.records():
            together.setdefault((record["repeat"], record["round"]), []).append(record)
        for records in together.values():
            planes = [sorted(set().union(*(record["planes"][axis] for record in records))) for axis in range(3)]
            scored = self.known.scored(planes)
            for record in records:
                task = (record["repeat"], record["strategy"], record["round"])
                if record["scored_voxels"] != (count := int(scored.sum())):
                    told = self._scores(np.load(self._answer(*task))["label"], scored)
                    write_json(self._path(*task), {**record, **told, "scored_voxels": count})

    def run(self, repeat: int, strategy: str, number: int) -> dict[str, Any]:
        """Draw, segment and score: one round.

        Raises:
            RuntimeError: when the round before was not done, or has left nothing to draw.
        """
        begun, before = time.perf_counter(), None
        if number:
            before = (repeat, strategy if number > 1 else START, number - 1)
            last = self.record(*before)
            if last is None:
                raise RuntimeError(f"left out: {self.name(*before)} is missing")
            if not last["next"][strategy]:
                raise RuntimeError("left out: every slice that may be drawn is drawn")
            planes = [
                sorted({*there, *(index for across, index in last["next"][strategy] if across == axis)})
                for axis, there in enumerate(last["planes"])
            ]
        else:
            planes = self._start(repeat)
        drawn, place = self.known.drawn(planes), self.place(repeat, strategy, number)
        label, uncertainty = self.segment(drawn, place, None if before is None else self.place(*before))
        scored = self.known.scored(planes)
        record = {
            "repeat": repeat,
            "strategy": strategy,
            "round": number,
            "planes": planes,
            "slices": sum(len(of_axis) for of_axis in planes),
            "share": float((drawn != self.known.unknown).mean()),
            **self._scores(label, scored),
            "scored_voxels": int(scored.sum()),
            "seconds": time.perf_counter() - begun,
            "next": {
                name: self._next(name, repeat, number, planes, label, uncertainty)
                for name in (self.plan.strategies if strategy == START else [strategy])
            },
        }
        with atomic_path(self._answer(repeat, strategy, number)) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, label=label)
        write_json(self._path(repeat, strategy, number), record)
        return record

    def _scores(self, label: np.ndarray, scored: np.ndarray) -> dict[str, Any]:
        ious = class_ious(label, self.known.label, scored, len(self.known.values))
        found = [value for value in ious if value is not None]
        named = dict(zip(map(str, self.known.values), ious, strict=True))
        return {"iou": named, "mean_iou": float(np.mean(found)) if found else None}

    def name(self, repeat: int, strategy: str, number: int) -> str:
        """A round, named."""
        return f"repeat {repeat + 1}, {strategy}" + (f", round {number}" if number else "")

    def place(self, repeat: int, strategy: str, number: int) -> Path:
        """The folder that belongs to a round's segmenter."""
        return self.out / "work" / self._stem(repeat, strategy, number)

    def _stem(self, repeat: int, strategy: str, number: int) -> str:
        return f"repeat{repeat}_{strategy}_round{number}"

    def _path(self, repeat: int, strategy: str, number: int) -> Path:
        return self.out / "rounds" / f"{self._stem(repeat, strategy, number)}.json"

    def _answer(self, repeat: int, strategy: str, number: int) -> Path:
        """Where a round's label lies, to be scored again when the others are done."""
        return self.out / "labels" / f"{self._stem(repeat, strategy, number)}.npz"

    def _start(self, repeat: int) -> Planes:
        """Planes from the middle half of those offered, drawn anew until they show every class, or as many as can be.

        An annotator, too, begins where there is something to see.
        """
        known, random = self.known, np.random.default_rng([self.plan.seed, repeat])
        best: tuple[int, Planes] = (0, [[], [], []])
        for _ in range(_TRIES):
            planes = [
                sorted(random.choice(_middle(offered, wanted), wanted, replace=False).tolist())
                for offered, wanted in zip(known.candidates, self.plan.start, strict=True)
            ]
            seen = np.unique(known.label[on_planes(known.label.shape, planes)])
            number = int((seen != known.unknown).sum())
            if number > best[0]:
                best = (number, planes)
            if number == len(known.values):
                break
        if best[0] < 2:
            came = f"{self.plan.start} slices to start with show {best[0]} class"
            raise InputError(problem(came, "two classes must be told apart", "pass a larger --start"))
        return best[1]

    def _next(
        self, strategy: str, repeat: int, number: int, planes: Planes, label: np.ndarray, uncertainty: np.ndarray
    ) -> list[tuple[int, int]]:
        """The planes that a strategy draws next: axis and index."""
        known, axes, count = self.known, self.plan.axes, self.plan.add
        if strategy == "random":
            seed = int(np.random.SeedSequence([self.plan.seed, repeat, number]).generate_state(1)[0])
            foreground = np.ones_like(label) if known.background is None else label != known.background
            return random_planes(foreground, planes, count, axes, known.candidates, seed)
        chosen: list[tuple[int, int]] = []
        if strategy == "gain":
            ranked = rank_planes(uncertainty, planes, count, axes, known.spacing, None, known.candidates)
            chosen = [(plane.axis, plane.index) for plane in ranked]
        there = [[*of_axis, *(i for across, i in chosen if across == axis)] for axis, of_axis in enumerate(planes)]
        # where nothing is uncertain any more, what is left is spread
        return chosen + even_planes(label.shape, there, count - len(chosen), axes, known.candidates)


def _middle(offered: Sequence[int], wanted: int) -> list[int]:
    """The middle half of an axis' planes, or as many as are wanted."""
    size = max(wanted, len(offered) - 2 * (len(offered) // 4))
    first = (len(offered) - size) // 2
    return list(offered[first : first + size])
