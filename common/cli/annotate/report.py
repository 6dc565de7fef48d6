"""What a simulation of annotation has found: its table, its curves, and how far random slices are as good."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ...files import atomic_path, write_json
from ...metrics.paired import PairedDifference, paired_difference
from ...metrics.stages import markdown_grid
from ...visualize.annotation_curves import annotation_curves
from .simulation import START, Simulation

__all__ = ["write_report"]

MARGIN = 0.02  # of mean IoU: a difference that nobody would draw slices otherwise for
_BASELINE = "random"
_DEFINED = {
    "gain": "gain: the slices that are expected to settle most of what is uncertain",
    "random": "random: slices drawn with a probability in proportion to the foreground predicted on them",
    "even": "even: slices as far from the others of their axis as can be",
}


def write_report(simulation: Simulation, title: str, failures: Mapping[str, str]) -> str:
    """Write ``report.md``, ``report.json``, ``rounds.csv`` and ``curves.png`` of the rounds that were done.

    Args:
        simulation: whose rounds are told.
        title: heading.
        failures: why rounds are missing, by their names.

    Returns:
        the Markdown.
    """
    records, out = simulation.records(), simulation.out
    strategies = simulation.plan.strategies
    compared = _compared(records, strategies)
    parts = [f"# {title}"]
    if records:
        seconds = sum(record["seconds"] for record in records)
        parts += [
            _scoring(simulation),
            _markdown(records, strategies),
            *(_sentence(name, base, difference) for (name, base), difference in compared.items()),
            "This holds for this volume, this label and this segmenter alone; published comparisons disagree.",
            "; ".join(_DEFINED[name] for name in strategies) + ".",
            f"{len(records)} segmentations took {seconds / 60:.1f} minutes.",
        ]
        _write_csv(records, out / "rounds.csv")
        annotation_curves(_curves(records, strategies), out / "curves.png", title)
    else:
        parts.append("Nothing was scored.")
    if failures:
        parts.append("Missing:\n\n" + "\n".join(f"- {name}: {error}" for name, error in failures.items()))
    text = "\n\n".join(parts) + "\n"
    told = {
        f"{name} - {base}": {"mean": d.mean, "low": _defined(d.low), "high": _defined(d.high), "repeats": d.pairs}
        | {"verdict": d.verdict}
        for (name, base), d in compared.items()
    }
    write_json(out / "report.json", {"differences": told, "margin": MARGIN, "missing": dict(failures)})
    with atomic_path(out / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def _scoring(simulation: Simulation) -> str:
    held_out = simulation.known.held_out
    where = (
        "all labelled voxels"
        if held_out is None
        else f"the {sum(map(len, held_out))} labelled slices that no strategy may draw"
    )
    repeats = simulation.plan.repeats
    spread = f": mean ± sample standard deviation over {repeats} repeats" if repeats > 1 else ""
    same = "of these in each line those that no strategy of the repeat has drawn by then, the same for all"
    return f"Mean IoU over the classes, on {where}, {same}{spread}."


def _markdown(records: Sequence[Mapping[str, Any]], strategies: Sequence[str]) -> str:
    lines = [["slices", "voxels drawn", *strategies]]
    for number in sorted({record["round"] for record in records}):
        own = [record for record in records if record["round"] == number]
        slices = sorted({record["slices"] for record in own})
        share = 100 * sum(record["share"] for record in own) / len(own)
        cells = []
        for name in strategies:
            scores = [r["mean_iou"] for r in own if r["strategy"] in (name, START) and r["mean_iou"] is not None]
            cells.append(_spread(scores))
        lines.append(["-".join(map(str, dict.fromkeys((slices[0], slices[-1])))), f"{share:.1f} %", *cells])
    return markdown_grid(lines, 1)


def _spread(scores: Sequence[float]) -> str:
    if not scores:
        return "-"
    return f"{mean(scores):.3f}" + (f" ± {stdev(scores):.3f}" if len(scores) > 1 else "")


def _compared(
    records: Sequence[Mapping[str, Any]], strategies: Sequence[str]
) -> dict[tuple[str, str], PairedDifference]:
    """Each strategy less random (else less the first): of every repeat the mean over the rounds that both have done.

    The rounds of a repeat go on from one another, so that they are no independent pairs; repeats are.
    """
    base = _BASELINE if _BASELINE in strategies else strategies[0]
    scores = {
        (record["strategy"], record["repeat"], record["round"]): record["mean_iou"]
        for record in records
        if record["mean_iou"] is not None
    }
    compared = {}
    for name in strategies:
        if name == base:
            continue
        pairs: dict[int, list[tuple[float, float]]] = {}
        for (strategy, repeat, number), score in scores.items():
            if strategy == name and (base, repeat, number) in scores:
                pairs.setdefault(repeat, []).append((score, scores[base, repeat, number]))
        means = [[mean(side) for side in zip(*of_repeat, strict=True)] for of_repeat in pairs.values()]
        compared[name, base] = paired_difference([m[0] for m in means], [m[1] for m in means], MARGIN)
    return compared


def _sentence(name: str, base: str, difference: PairedDifference) -> str:
    """A difference, and what follows from it."""
    if not difference.pairs:
        return f"**{name} and {base}** can not be compared: no round was done by both."
    told = f"**{name} less {base}**: {difference.mean:+.3f} mean IoU over the rounds"
    if math.isnan(difference.low):
        return f"{told}, of one repeat; chance can not be told from it, more can (--repeats 3)."
    told += f" (95 % interval {difference.low:+.3f} to {difference.high:+.3f}, {difference.pairs} repeats): "
    return (
        told
        + {
            "better": f"choosing slices by {name} was better than by {base}.",
            "worse": f"choosing slices by {name} was worse than by {base}.",
            "as good": f"{base} is as good as {name}, within {MARGIN} mean IoU.",
            "undecided": f"no difference can be told from chance, so that {base} may be as good; "
            "more repeats narrow the interval.",
        }[difference.verdict]
    )


def _curves(
    records: Sequence[Mapping[str, Any]], strategies: Sequence[str]
) -> dict[str, list[list[tuple[float, float]]]]:
    repeats = sorted({record["repeat"] for record in records})
    return {
        name: [
            [
                (record["slices"], record["mean_iou"])
                for record in records
                if record["repeat"] == repeat and record["strategy"] in (name, START) and record["mean_iou"] is not None
            ]
            for repeat in repeats
        ]
        for name in strategies
    }


def _write_csv(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    columns = ["repeat", "strategy", "round", "slices", "share", "class", "iou"]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        for record in records:
            shared = {name: record[name] for name in columns[:5]} | {"repeat": record["repeat"] + 1}
            for name, iou in {**record["iou"], "mean": record["mean_iou"]}.items():
                writer.writerow({**shared, "class": name, "iou": iou})


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None
