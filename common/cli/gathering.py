"""Results of several processes put together in one folder, as one process would have left them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..files import atomic_path, case_name, read_json, write_json

__all__ = ["finished_cases", "gather"]

_REPORT = "_report.json"
_LISTS = ("predictions.json", "failures.json")


def finished_cases(folder: str | os.PathLike[str]) -> set[str]:
    """The names of the cases in a folder that are done: a report is the last that is written of a case.

    Args:
        folder: where a prediction writes, or has written.
    """
    return {path.name.removesuffix(_REPORT) for path in Path(folder).glob(f"[!.]*{_REPORT}")}


def gather(
    parts: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    failures: Iterable[Mapping[str, str]] = (),
) -> list[str]:
    """Move the results of parts of a study into one folder, and bring its lists up to date.

    Only cases that are done are moved, each file whole or not at all, reports last: it may be interrupted and called
    again at any moment, on parts of a run that was killed, too. ``predictions.json`` and ``failures.json`` of `out`
    hold what they held and what is new, in the order of names, each case in one of both. Parts of which nothing is
    left are removed.

    Args:
        parts: folders that predictions were written to; later ones win. What is no folder is passed over.
        out: the folder of all results.
        failures: more cases that failed, ``{"case": file name, "error": text}``.

    Returns:
        names of the cases that were moved.

    Raises:
        InputError: when `out` can not be written to.
    """
    out, parts = Path(out), [Path(part) for part in parts if os.path.isdir(part)]
    told, reports = _failures(out), {}
    for part in parts:
        told |= _failures(part)
        done = finished_cases(part)
        reports |= {name: part / f"{name}{_REPORT}" for name in done}
        for path in _results(part, done):
            _move(path, out / path.relative_to(part))
    told |= {case_name(failure["case"]): failure for failure in failures}
    _write_lists(out, {name: told[name] for name in sorted(told) if name not in reports}, reports)
    for part in parts:  # once the lists are right, since a report says that nothing is left to be done
        for name in finished_cases(part):
            _move(part / f"{name}{_REPORT}", out / f"{name}{_REPORT}")
        _remove_done(part)
    return sorted(reports)


def _failures(folder: Path) -> dict[str, Mapping[str, str]]:
    listed = folder / "failures.json"
    return {case_name(failure["case"]): failure for failure in read_json(listed)} if listed.is_file() else {}


def _results(part: Path, done: set[str]) -> list[Path]:
    """The files of cases that are done, but for the reports; hidden ones are being written."""
    files = [path for path in part.rglob("[!.]*") if path.is_file() and path.name not in _LISTS]
    return [path for path in files if not path.name.endswith(_REPORT) and _owner(path.name, done)]


def _owner(name: str, cases: set[str]) -> str:
    """The case that a file belongs to: "a_b" for a_b_seg.nii.gz, where "a" and "a_b" are cases; "" for none."""
    owners = [case for case in cases if name.startswith((f"{case}_", f"{case}."))]
    return max(owners, key=len, default="")


def _move(path: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.move(path, temporary)  # a rename on one file system, a copy between two


def _remove_done(part: Path) -> None:
    """Remove a part's lists, which are those of `out` now, and its folder when nothing else is left in it."""
    for name in _LISTS:
        (part / name).unlink(missing_ok=True)
    with suppress(OSError):  # something is left
        part.rmdir()


def _write_lists(out: Path, failures: Mapping[str, Mapping[str, str]], reports: Mapping[str, Path]) -> None:
    listed = out / "predictions.json"
    before = read_json(listed) if listed.is_file() else {"cases": []}
    cases: dict[str, Any] = {case["case"]: case for case in before["cases"]}
    heads = {key: before[key] for key in ("weights", "versions") if key in before}
    for name, path in reports.items():
        report = read_json(path)
        heads = {key: report.pop(key, None) for key in ("weights", "versions")}
        cases[name] = report
    failed = list(failures.values())
    if cases:
        ordered = [cases[name] for name in sorted(cases) if name not in failures]
        write_json(listed, {**heads, "cases": ordered, "failures": failed})
    if failed:
        write_json(out / "failures.json", failed)
    else:
        (out / "failures.json").unlink(missing_ok=True)
