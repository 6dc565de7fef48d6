"""What ``volseg densify`` leaves for its user: label, uncertainty, picture and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...data.annotation import to_values
from ...data.volume_file import VolumeFile, write_like
from ...files import atomic_path, read_json, write_json
from ...geometry.next_slice import rank_planes
from ...geometry.planes import on_planes
from ...metrics.stages import markdown_grid
from ...metrics.uncertainty import uncertainty_scores, uncertainty_text
from ...visualize.densify import densify_figure
from ...visualize.planes import FilledVolume
from ..annotate.next_slices import describe_planes, next_table
from .case import read_array, refined
from .folder import Folder, case_of, planes_text, read_filled
from .pace import minutes_text

__all__ = ["write_results"]

_NEXT = 5
_CUBES = {"mm": "mm³", "micron": "µm³", "meter": "m³"}


def write_results(folder: Folder, volume: VolumeFile, keep_drawn: bool = True, rivals: str = "") -> str:
    """Write label and uncertainty on the image's grid in its format, ``densify.png``, ``report.json``, ``report.md``.

    Args:
        folder: of a round whose steps are done.
        volume: the image.
        keep_drawn: whether voxels that were drawn keep what was drawn, with uncertainty 0, or have the network's label.
        rivals: table of rivals that were scored, too.

    Returns:
        the report as Markdown.
    """
    case, record = read_filled(folder.path)
    held_out = _held_out(record)
    tested, unsure = (_of_fit(folder, record, name) for name in ("seg", "uncertainty"))
    drawn = case.drawn != case.unlabelled
    dense = np.where(drawn, case.drawn, case.dense) if keep_drawn else case.dense
    uncertainty = np.where(drawn, 0, case.uncertainty) if keep_drawn else case.uncertainty
    files = [f"dense{volume.suffix}", f"uncertainty{volume.suffix}"]
    write_like(volume, folder.path / files[0], to_values(dense, record["values"]))
    write_like(volume, folder.path / files[1], uncertainty.astype(np.float32), "uncertainty")
    name = record["inputs"]["image"]["name"]
    if densify_figure(case, folder.path / "densify.png", name, held_out, tested):
        files.append("densify.png")
    report = {
        "image": name,
        "notes": record["notes"],
        "classes": _classes(folder, case, dense, record),
        "held_out": held_out,
        "uncertainty": _uncertainty(folder, case, held_out, tested, unsure),
        "next": _next(case, record),
        "seconds": {name: seconds for name, seconds in record["steps"].items() if name != "write"},
        "finished": record["settings"].get("finish_epochs") != 0,
        "keep_drawn": keep_drawn,
    }
    files += ["report.json", "report.md"]
    write_json(folder.path / "report.json", {**report, "files": files})
    text = _markdown(report, files, case.unit, rivals)
    picture = "\n![image, slices, label and uncertainty](densify.png)\n" if "densify.png" in files else ""
    with atomic_path(folder.path / "report.md") as temporary:
        temporary.write_text(text + picture, encoding="utf-8")
    folder.record["files"] = files
    return text


def _held_out(record: Mapping[str, Any]) -> list[list[int]] | None:
    """The planes held out as those of the image's grid on which something was drawn."""
    if record["held_out"] is None:
        return None
    factor = record["downsample"]
    pairs = zip(record["planes"], record["held_out"], strict=True)
    return [[index for index in drawn if index // factor in out] for drawn, out in pairs]


def _of_fit(folder: Folder, record: Mapping[str, Any], name: str) -> np.ndarray | None:
    """What the network makes of the volume that has not seen the slices held out."""
    if record["held_out"] is None:
        return None
    return refined(
        read_array(folder.path / "fit" / f"{case_of(record)}_{name}.nii.gz"),
        record["downsample"],
        tuple(record["shape"]),
    )


def _classes(folder: Folder, case: FilledVolume, dense: np.ndarray, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    summary = {}
    if record["held_out"] is not None:
        summary = read_json(folder.path / "fit" / "metrics.json")["summary"]
    number = len(case.class_names)
    drawn = np.bincount(case.drawn.ravel(), minlength=number + 1)
    filled = np.bincount(dense.ravel(), minlength=number)
    voxel = float(np.prod(record["spacing"]))
    return [
        {
            "name": name,
            "value": record["values"][k],
            "iou_held_out": summary.get(name, {}).get("iou", {}).get("mean"),
            "voxels_drawn": int(drawn[k]),
            "voxels": int(filled[k]),
            "volume": float(filled[k] * voxel),
        }
        for k, name in enumerate(case.class_names)
    ]


def _uncertainty(
    folder: Folder,
    case: FilledVolume,
    held_out: Sequence[Sequence[int]] | None,
    tested: np.ndarray | None,
    unsure: np.ndarray | None,
) -> dict[str, Any] | None:
    """How well the uncertainty tells errors on the slices held out."""
    if held_out is None or tested is None or unsure is None:
        return None
    record = folder.record
    # where slices of an earlier round cross those held out, the case lacks what was drawn
    known = read_array(folder.path / "data" / "labelsTr" / f"{case_of(record)}.nii.gz") != case.unlabelled
    scored = on_planes(case.drawn.shape, held_out) & (case.drawn != case.unlabelled)
    scored &= refined(known.astype(np.uint8), record["downsample"], case.drawn.shape).astype(bool)
    return uncertainty_scores(unsure[scored], tested[scored] != case.drawn[scored])


def _next(case: FilledVolume, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    ranked = rank_planes(case.uncertainty, record["planes"], _NEXT, spacing=record["spacing"])
    return describe_planes(ranked, record)


def _markdown(report: Mapping[str, Any], files: Sequence[str], unit: str, rivals: str) -> str:
    cube = _CUBES.get(unit, "")
    rows = [["class", "value", "IoU held out", "voxels drawn", "voxels", f"volume{f', {cube}' if cube else ''}"]]
    for one in report["classes"]:
        cells = [one["name"], one["value"], _score(one["iou_held_out"]), one["voxels_drawn"], one["voxels"]]
        rows.append([*map(str, cells), f"{one['volume']:.4g}"])
    scores = [one["iou_held_out"] for one in report["classes"] if one["iou_held_out"] is not None]
    told = report["uncertainty"]
    times = ", ".join(f"{name} {minutes_text(seconds)}" for name, seconds in report["seconds"].items())
    parts = [
        f"# {report['image']}, filled up",
        "\n".join(f"- {note}" for note in report["notes"]),
        markdown_grid(rows, 1),
        _score_text(report, scores) if scores else "",
        f"Uncertainty on these slices: {uncertainty_text(told)}" if told else "",
        "Voxels that were drawn are as drawn; their uncertainty is 0." if report["keep_drawn"] else "",
        _next_text(report["next"]),
        rivals.strip().replace("# ", "## ", 1),
        f"Time: {times}; together {minutes_text(sum(report['seconds'].values()))}.",
        "Files: " + ", ".join(files) + ".",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _score_text(report: Mapping[str, Any], scores: Sequence[float]) -> str:
    planes = planes_text(report["held_out"])
    told = f"Mean IoU on slices held out ({planes}, counted from 0): {np.mean(scores):.3f}."
    told += " The best epoch was chosen by it, so that it leans high a little."
    if report["finished"]:
        told += " The network that filled the volume up has then been trained with these slices, too."
    return told


def _next_text(planes: Sequence[Mapping[str, Any]]) -> str:
    if not planes:
        return "No slice is expected to settle anything more."
    told = "The gain is the share of all uncertainty that a slice is expected to settle, given those above it."
    return f"What to draw next:\n\n{next_table(planes)}\n\n{told}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
