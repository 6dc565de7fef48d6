"""``volseg annotate simulate``: which way of choosing slices is best, measured on a volume whose label is known."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ...checks import InputError, nearest, problem
from ...data.annotation import annotated_planes
from ...data.annotation_files import DrawnFile, read_drawn
from ...data.unlabelled import PLANES, drawn_voxels, parse_unlabelled, read_unlabelled
from ...data.volume_file import VolumeFile, check_finite, read_volume
from ...files import case_name
from ...geometry.slice_groups import split_slices
from ..densify.case import class_names
from ..densify.pace import minutes_text
from ..densify.steps import OVERLAY, Line
from ..words import check_known
from .report import write_report
from .segmenters import RIVALS, NetworkSegmenter, RivalSegmenter
from .simulation import Known, Plan, Simulation

__all__ = ["NETWORK", "read_known", "simulate"]

NETWORK = "unet"
_HELD_OUT = 4  # of the slices of a sparse label one in so many is for scoring alone


def simulate(
    image: str,
    label: str,
    out: str | None,
    plan: Plan,
    segmenter: str,
    bundle: Path,
    options: Mapping[str, str | None],
    overlays: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> int:
    """Simulate annotation, round by round, and write what it comes to; a line that is given again goes on.

    Args:
        image: the volume's file.
        label: file of its label, dense, or of many annotated slices.
        out: folder of everything that is written; ``annotate/IMAGE`` by default.
        plan: what is simulated.
        segmenter: ``unet`` or a rival.
        bundle: folder of the bundle that ``unet`` trains.
        options: ``unlabelled`` (a value, ``planes``, or ``none`` of a dense label; found out by default),
            ``background``, ``spacing``, ``key`` (data set of an HDF5 image) and ``label_key``.
        overlays: more overlays of the bundle.
        overrides: config entries for the network.

    Returns:
        0, 1 when a round failed, 130 when it was interrupted.

    Raises:
        InputError: for what can not be simulated.
    """
    overrides = dict(overrides or {})
    _check_segmenter(segmenter, bundle, overlays, overrides)
    volume = read_volume(image, options.get("spacing"), options.get("key"))
    check_finite(volume)
    known, notes = read_known(volume, label, options)
    place = Path(out or Path("annotate") / case_name(image))
    about = {
        "image": _fingerprint(volume.array),
        "label": _fingerprint(known.label),
        "values": list(known.values),
        "background": known.background,
        "held_out": known.held_out,
        "segmenter": segmenter,
        "overlays": list(overlays),
        "settings": overrides,
    }
    if segmenter == NETWORK:
        names = class_names(known.values)
        settings = {"seed": plan.seed, **overrides}
        segment = NetworkSegmenter(bundle, volume, known.values, names, settings, overlays)
    else:
        segment = RivalSegmenter(segmenter, volume, len(known.values))
    simulation = Simulation(known, plan, segment, place, about)
    simulation.check()
    for note in notes:
        print(note)
    return _run(simulation, f"{', '.join(plan.strategies)} on {case_name(image)} by {segmenter}")


def read_known(volume: VolumeFile, label: str, options: Mapping[str, str | None]) -> tuple[Known, list[str]]:
    """What a label tells of a volume, which of its planes may be drawn, and what was taken it to mean.

    A label of which nothing is unlabelled is dense: all planes may be drawn. Of one with annotated planes these may be,
    but for a quarter that is for scoring alone.

    Args:
        volume: the image.
        label: file of the label.
        options: see :func:`simulate`.

    Raises:
        InputError: a label that does not fit the image, one class only, or too few planes.
    """
    drawn, notes = read_drawn(label, volume, options.get("label_key"))
    given = options.get("unlabelled")
    unlabelled = parse_unlabelled(given) if given else _found_unlabelled(drawn, volume)
    mask = drawn_voxels(drawn, unlabelled)
    values = tuple(int(value) for value in np.unique(drawn.values[mask]))
    if not 2 <= len(values) <= 255:
        came = f"'{drawn.name}' has the classes {', '.join(map(str, values[:8])) or 'none'}"
        raise InputError(problem(came, "two classes or more must be told apart, 255 at most", "give another label"))
    classes = np.full(volume.shape, len(values), np.uint8)
    classes[drawn.box][mask] = np.searchsorted(values, drawn.values[mask])
    background = _background(options.get("background"), values)
    if (classes != len(values)).all():
        planes = [list(range(size)) for size in volume.shape]
        notes.append("The label is dense: every slice may be drawn, and what no strategy has drawn is scored.")
        return Known(classes, values, volume.spacing, planes, None, background), notes
    planes = annotated_planes(classes, len(values))
    total = sum(map(len, planes))
    if total < 2 * _HELD_OUT:
        came = f"'{drawn.name}' has {total} annotated slices"
        rule = f"some are held out and some drawn: a label is dense or has {2 * _HELD_OUT} slices or more"
        raise InputError(problem(came, rule, "annotate more of them, or pass --unlabelled none if all is labelled"))
    held_out = split_slices(planes, _HELD_OUT)[0]
    open_planes = [sorted(set(of) - set(out)) for of, out in zip(planes, held_out, strict=True)]
    notes.append(
        f"The label has {total} annotated slices (unlabelled: {unlabelled}): {sum(map(len, held_out))} are held out "
        f"for scoring (counted from 0: x {held_out[0]}, y {held_out[1]}, z {held_out[2]}), the others may be drawn."
    )
    return Known(classes, values, volume.spacing, open_planes, held_out, background), notes


def _found_unlabelled(drawn: DrawnFile, volume: VolumeFile) -> int | None:
    """The value that marks unlabelled voxels, where annotated planes are full of other values; None in a dense label.

    Whether 0 is background or unlabelled beside objects alone is not asked here: a label to simulate on is dense.
    """
    try:
        found = read_unlabelled([drawn], None, volume.shape).unlabelled
    except InputError:
        return None
    return None if found == PLANES else found


def _background(given: str | None, values: Sequence[int]) -> int | None:
    """The class that is no foreground: of value 0 by default, if there is one."""
    told = (given or "").strip().lower()
    if told == "none":
        return None
    if not told:
        return values.index(0) if 0 in values else None
    if told not in map(str, values):
        came = f"--background is {given}"
        rule = f"it is one of the label's values {', '.join(map(str, values))}, or none"
        raise InputError(problem(came, rule, "pass one of these"))
    return list(map(str, values)).index(told)


def _check_segmenter(segmenter: str, bundle: Path, overlays: Sequence[str], overrides: Mapping[str, Any]) -> None:
    if segmenter != NETWORK and segmenter not in RIVALS:
        known = (NETWORK, *RIVALS)
        came = f"--segmenter is {segmenter}"
        near = nearest(segmenter, known) or NETWORK
        raise InputError(problem(came, f"it is one of {', '.join(known)}", f"pass --segmenter {near}"))
    if segmenter == NETWORK:
        check_known(overrides, Line(bundle, ("train", OVERLAY, *overlays)).ids())
    elif overrides or overlays:
        came = f"--{next(iter(overrides), 'overlays')} was given"
        raise InputError(problem(came, f"{segmenter} trains nothing, so that no config is read", "leave it out"))


def _run(simulation: Simulation, title: str) -> int:
    """Do the rounds that are not done; one that fails does not end the others, only those that go on from it."""
    tasks = simulation.tasks()
    left = [task for task in tasks if simulation.record(*task) is None]
    print(f"{len(left)} of {len(tasks)} rounds to do, one file each in {simulation.out / 'rounds'}", flush=True)
    failures: dict[str, str] = {}
    begun = time.perf_counter()
    try:
        with tqdm(total=len(left), unit="round", smoothing=0, disable=None) as bar:
            for number, task in enumerate(left, start=1):
                name = simulation.name(*task)
                try:
                    record = simulation.run(*task)
                except Exception as error:  # whatever it was: the other rounds can be done
                    failures[name] = str(error) or type(error).__name__
                    bar.write(f"{name}: {failures[name]}")
                else:
                    rest = (time.perf_counter() - begun) / number * (len(left) - number)
                    score = "nothing to score" if record["mean_iou"] is None else f"mean IoU {record['mean_iou']:.3f}"
                    slices = record["slices"]
                    bar.write(
                        f"{name}: {slices} slices, {score}, {record['seconds']:.0f} s; about {minutes_text(rest)} left"
                    )
                bar.update()
    except KeyboardInterrupt:
        print("stopped; the same line goes on from here")
        return 130
    simulation.rescore()
    print(f"\n{write_report(simulation, title, failures)}")
    for name in ("report.md", "report.json", "rounds.csv", "curves.png"):
        if (simulation.out / name).is_file():
            print(f"Written: {simulation.out / name}")
    return 1 if failures else 0


def _fingerprint(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()[:16]
