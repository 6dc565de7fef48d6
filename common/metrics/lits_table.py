"""The table of the LiTS challenge: scores over cases and over all voxels, lesions found, and the tumour burden."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_path, write_json
from .lesions import detection
from .lits import DISTANCES, OVERLAPS, THRESHOLDS
from .stages import markdown_grid
from .table import summarise

__all__ = ["LitsTable"]

_TITLES = {
    "dice": "Dice per case",
    "jaccard": "Jaccard",
    "voe": "VOE",
    "rvd": "RVD",
    "assd_mm": "ASSD, mm",
    "rmsd_mm": "RMSD, mm",
    "msd_mm": "MSD, mm",
}
_COUNTS = ("both_voxels", "pred_voxels", "label_voxels")
_RULES = (
    'Means over cases with 95 % intervals; "n of N" where a score is defined for some cases only. No case is left '
    "out of Dice, Jaccard and VOE: what is neither in the reference nor in the prediction scores 1, 1 and 0, what is "
    "missed, or found where there is none, 0, 0 and 1. RVD is signed, positive where too much is found, and undefined "
    "where the reference is empty and the prediction is not. Distances are undefined where either is empty. Dice "
    "global is that of the voxels of all cases together.",
    "Lesions are connected components (neighbours share a face), counted over all cases; pairs whose IoU exceeds the "
    "threshold are matched one to one.",
    "Tumour burden: volume of the lesions over that of the organ with them, of the prediction minus that of the "
    "reference.",
)


class LitsTable:
    """Collects the scores of cases by :func:`~common.metrics.lits.lits_scores`, and writes CSV, JSON and Markdown.

    Args:
        organ: name of the organ.
        lesion: name of the lesions; None where they are not scored.
    """

    def __init__(self, organ: str = "liver", lesion: str | None = "tumour") -> None:
        self.names = {"organ": organ, **({} if lesion is None else {"lesion": lesion})}
        self.cases: list[dict[str, Any]] = []

    def add(self, case: str, scores: Mapping[str, Mapping[str, Any]], more: Mapping[str, float] | None = None) -> None:
        """Add a case.

        Args:
            case: its name.
            scores: as :func:`~common.metrics.lits.lits_scores` returns them.
            more: further numbers of the case by name, for the CSV and JSON files; NaN where undefined.
        """
        self.cases.append({"case": case, "more": dict(more or {}), **scores})

    def summary(self) -> dict[str, Any]:
        """What the cases come to.

        Returns:
            for the name of the organ and that of the lesions: ``dice_per_case``, the other scores, each as
            :func:`~common.metrics.table.summarise` returns it, ``dice_global`` and ``status``, in how many cases it is
            scored, absent, missed or a false find. With lesions, ``detection`` (``reference`` and ``predicted``
            lesions, and by threshold ``matched``, ``precision``, ``recall`` and ``f1``) and ``tumour_burden``
            (``rmse``, ``max_error``, ``n``). None where undefined.
        """
        found: dict[str, Any] = {}
        for key, name in self.names.items():
            rows = [case[key] for case in self.cases]
            both, ours, theirs = (sum(row[count] for row in rows) for count in _COUNTS)
            found[name] = {
                "dice_per_case": summarise(row["dice"] for row in rows),
                "dice_global": 2 * both / (ours + theirs) if ours + theirs else (1.0 if rows else None),
                **{score: summarise(row[score] for row in rows) for score in (*OVERLAPS[1:], *DISTANCES)},
                "status": dict(Counter(row["status"] for row in rows)),
            }
        if "lesion" in self.names:
            found["detection"] = self._detection()
            errors = np.array([case["burden"]["pred"] - case["burden"]["label"] for case in self.cases])
            found["tumour_burden"] = {
                "rmse": float(np.sqrt(np.mean(errors**2))) if errors.size else None,
                "max_error": float(np.abs(errors).max()) if errors.size else None,
                "n": int(errors.size),
            }
        return found

    def _detection(self) -> dict[str, Any]:
        counts = [case["lesion"]["counts"] for case in self.cases]
        reference, predicted = (sum(getattr(one, name) for one in counts) for name in ("reference", "predicted"))
        found: dict[str, Any] = {"reference": reference, "predicted": predicted}
        for number, threshold in enumerate(THRESHOLDS):
            matched = sum(one.matched[number] for one in counts)
            found[_above(threshold)] = {"matched": matched, **detection(reference, predicted, matched)._asdict()}
        return found

    def rows(self) -> list[dict[str, Any]]:
        """A flat dictionary a case, the same names in all; None where undefined."""
        rows = []
        for case in self.cases:
            row: dict[str, Any] = {"case": case["case"]}
            for key, name in self.names.items():
                columns = (*OVERLAPS, *DISTANCES, "status", *_COUNTS)
                row |= {f"{name}_{column}": case[key][column] for column in columns}
            if "lesion" in self.names:
                counts, name = case["lesion"]["counts"], self.names["lesion"]
                row |= {f"{name}_lesions_label": counts.reference, f"{name}_lesions_pred": counts.predicted}
                row |= {
                    f"{name}_lesions_{_above(threshold)}": matched
                    for threshold, matched in zip(THRESHOLDS, counts.matched, strict=True)
                }
                row |= {f"burden_{which}": case["burden"][which] for which in ("label", "pred")}
            rows.append({**row, **case["more"]})
        names = dict.fromkeys(name for row in rows for name in row)
        return [{name: _defined(row.get(name)) for name in names} for row in rows]

    def markdown(self) -> str:
        """The table as Markdown whose columns are aligned, to be read as it is, too."""
        summary, total = self.summary(), len(self.cases)
        names = list(self.names.values())
        lines = [["", *names]]
        for score in (*OVERLAPS, *DISTANCES):
            groups = [summary[name]["dice_per_case" if score == "dice" else score] for name in names]
            lines.append([_TITLES[score], *(_mean_text(group, total, score) for group in groups)])
            if score == "dice":
                lines.append(["Dice global", *(_text(summary[name]["dice_global"]) for name in names)])
        for status in ("absent", "missed", "false find"):
            counts = [summary[name]["status"].get(status, 0) for name in names]
            lines += [[f"cases, {status}", *map(str, counts)]] if any(counts) else []
        lines.append(["cases", *[str(total)] * len(names)])
        parts = ["# LiTS scores", markdown_grid(lines, 1), _RULES[0]]
        if "lesion" in self.names:
            parts += [*_detection_text(summary["detection"], self.names["lesion"]), _RULES[1]]
            burden = summary["tumour_burden"]
            parts += ["# Tumour burden", f"RMSE {_text(burden['rmse'])}, maximum error {_text(burden['max_error'])}."]
            parts.append(_RULES[2])
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path, sections: Sequence[str] = (), notes: Sequence[str] = (), **extra: Any) -> str:
        """Write ``lits.csv`` (a row a case), ``lits.json`` and ``lits.md``, each whole or not at all.

        Args:
            folder: where to.
            sections: Markdown to put below the table.
            notes: paragraphs at the end.
            extra: more entries for the JSON file.

        Returns:
            the Markdown.
        """
        rows = self.rows()
        with (
            atomic_path(folder / "lits.csv") as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.DictWriter(stream, list(rows[0]) if rows else ["case"])
            writer.writeheader()
            writer.writerows(rows)
        write_json(
            folder / "lits.json",
            {
                "summary": self.summary(),
                "rules": list(_RULES if "lesion" in self.names else _RULES[:1]),
                "notes": list(notes),
                **extra,
                "cases": rows,
            },
        )
        text = "\n".join([self.markdown(), *sections, *(f"{note}\n" for note in notes)])
        with atomic_path(folder / "lits.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        return text


def _detection_text(found: Mapping[str, Any], lesion: str) -> list[str]:
    lines = [["lesions of all cases", "matched", "precision", "recall", "F1"]]
    for threshold in THRESHOLDS:
        row = found[_above(threshold)]
        scores = (_text(row[name]) for name in ("precision", "recall", "f1"))
        lines.append([_above(threshold).replace("iou", "IoU"), str(row["matched"]), *scores])
    counted = f"{found['reference']} in the references, {found['predicted']} predicted."
    return [f"# Lesions: {lesion}", counted, markdown_grid(lines, 1)]


def _above(threshold: float) -> str:
    return f"iou > {threshold:g}"


def _mean_text(group: Mapping[str, Any], total: int, score: str) -> str:
    if not group["n"]:
        return "-"
    form = ".2f" if score in DISTANCES else ".3f"
    text = _text(group["mean"], form)
    if group["ci95"] is not None:
        text += f" [{_text(group['ci95'][0], form)}, {_text(group['ci95'][1], form)}]"
    return text + (f" ({group['n']} of {total})" if group["n"] < total else "")


def _text(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
