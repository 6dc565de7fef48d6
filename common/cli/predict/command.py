"""``volseg predict``: what lies before and after its line, so that DICOM series and long lists of cases work, too."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...checks import InputError, parse_flag, problem
from ...data.arguments import parse_optional_integer
from ...files import case_name, read_json
from ..cluster.chunks import run_chunks, split_cases
from ..cluster.connect import check_cluster
from ..gathering import gather
from ..launch import INTERRUPTED, bundle_command, launch
from ..locate import find_bundle
from ..words import checked_configs, split_names, with_root
from .folder import PARTS, Results, working_in
from .inputs import Inputs, read_inputs
from .request import Record, parsed, places, request_of
from .seg import Segmentations
from .stage import Cases, list_cases
from .weights import check_weights

__all__ = ["Options", "predict"]


@dataclass(frozen=True)
class Options:
    """What is asked of a prediction beside its line.

    Args:
        series: which DICOM series of a place is meant: its number, ``all``, or empty.
        dicom_seg: whether a DICOM SEG is written of each series.
        again: whether cases that are done are segmented anew.
        workers: processes at a time; None for one line.
        scheduler: address of a Dask scheduler; None for one line.
        tls: folder of certificates for it.
        verbose: show whole tracebacks.
    """

    series: str = ""
    dicom_seg: bool = False
    again: bool = False
    workers: int | None = None
    scheduler: str | None = None
    tls: str | None = None
    verbose: bool = False

    @classmethod
    def of(cls, words: Mapping[str, str]) -> Options:
        """Options as they were typed; what is empty was not given.

        Raises:
            InputError: for a flag that is none, or a number of workers.
        """
        return cls(
            series=words.get("series", ""),
            **{name: parse_flag(words.get(name, ""), name) for name in ("dicom_seg", "again", "verbose")},
            workers=parse_optional_integer(words.get("workers"), "workers"),
            scheduler=words.get("scheduler") or None,
            tls=words.get("tls") or None,
        )

    @property
    def spread(self) -> bool:
        """Whether the cases are spread over processes."""
        return any(one is not None for one in self.cluster)

    @property
    def cluster(self) -> tuple[int | None, str | None, Path | None]:
        """Workers, scheduler and certificates."""
        return self.workers, self.scheduler, None if self.tls is None else Path(self.tls)


def predict(
    name: str, inputs: Sequence[str], out: str, overlays: str, words: Mapping[str, str], overrides: Mapping[str, str]
) -> int:
    """Segment volumes and DICOM series.

    Args:
        name: a bundle's name or folder.
        inputs: files, zips, folders or globs.
        out: folder of the results; empty for that of the configs.
        overlays: names of configs, separated by commas.
        words: options of the command as they were typed.
        overrides: config entries by name.

    Returns:
        the exit status: 0, 2 when a case failed, or the line's own.

    Raises:
        InputError: for what no run could use.
        WeightsError: for weights that are not there, or of another network.
    """
    if not inputs or "dataset_dir" in overrides:
        came = "no image was named" if not inputs else "--dataset_dir was given"
        rule = "there must be something to segment" if not inputs else "what is segmented is named after the bundle"
        raise InputError(problem(came, rule, "write: volseg predict NAME INPUT"))
    options = Options.of(words)
    bundle, names = find_bundle(name), split_names(overlays)
    overrides = {**({"output_dir": out} if out else {}), **overrides}
    configs = checked_configs(bundle, ["inference", *names], overrides, ("out", "overlays", *words))
    if options.spread:
        check_cluster(*options.cluster, overrides.get("device"))
    parser = parsed(bundle, configs, overrides)
    folder, weights = places(parser)
    metadata = read_json(bundle / "configs" / "metadata.json")
    segmentations = Segmentations(metadata) if options.dicom_seg else None
    found = read_inputs(inputs, folder)
    _check_series(options.series, bool(found.sources))
    check_weights(parser, weights)
    request = request_of(metadata, configs, names, overrides, weights)
    line = _Line(configs, bundle, overrides, options)
    try:
        with working_in(folder) as place:
            record = Record(folder, request)
            if record.differing:
                told = ", ".join(record.differing)
                print(f"The results in {folder} are of another request ({told}): all is done anew.")
            cases = _find(found, Cases(place, record, options.again), options.series, metadata)
            return _segment(Results(folder, record, cases), inputs, line, segmentations)
    except KeyboardInterrupt:
        print("Interrupted; the same line goes on.", file=sys.stderr)
        return INTERRUPTED


def _segment(results: Results, inputs: Sequence[str], line: _Line, segmentations: Segmentations | None) -> int:
    """Segment the cases that wait, and bring the lists up to date whatever becomes of them; return the exit status."""
    status, failures = 0, list(results.cases.failures)
    try:
        results.begin()
        if results.cases.waiting:
            status = line.run(results, inputs)
            failures += results.failures()
        if segmentations is not None and status != INTERRUPTED:
            failures += segmentations.write(results)
    finally:
        results.write_lists(failures)
    return _tell(results, failures, status)


def _find(found: Inputs, cases: Cases, series: str, metadata: Mapping[str, Any]) -> Cases:
    """Look for the cases, and tell which are done."""
    cases.take_volumes(found.volumes)
    expected = (metadata.get("expected_input") or {}).get("modality")
    cases.take_series(found.sources, {"wanted": series, "modality": expected, "ask": _asking()})
    _check_series(series, bool(cases.failures) or any(case.source is not None for case in cases.cases))
    if done := len(cases.cases) - len(cases.waiting):
        print(f"{done} of {len(cases.cases)} cases are done already (--again true segments them anew).")
    for case in () if cases.again else cases.waiting:
        if cases.record.report(case.name) is not None:
            print(f"{case.name}: its results are those of another input, and are replaced.")
    return cases


def _check_series(series: str, dicom: bool) -> None:
    """Refuse a choice among series where there is none.

    Args:
        series: as it was typed.
        dicom: whether an input is DICOM.
    """
    if series and not dicom:
        came, rule = f"--series {series} was given, and no input is DICOM", "it says which series of an input is meant"
        raise InputError(problem(came, rule, "leave it out, or name a folder, a zip or files of DICOM series"))


def _asking() -> Callable[[str], str] | None:
    """What asks a person for a series; None where nobody sits at a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None

    def ask(table: str) -> str:
        print(table)
        with contextlib.suppress(EOFError):
            return input("Which series (its number, or all)? ")
        return ""

    return ask


class _Line:
    """The line of MONAI, once for all cases or once for each chunk of them."""

    def __init__(self, configs: Sequence[Path], bundle: Path, overrides: Mapping[str, str], options: Options) -> None:
        self.configs, self.bundle, self.overrides, self.options = configs, bundle, overrides, options

    def command(self, source: str | os.PathLike[str], **more: str) -> list[str]:
        """Its arguments."""
        return bundle_command(
            self.configs, with_root(self.bundle, {"dataset_dir": str(source), **self.overrides, **more})
        )

    def run(self, results: Results, inputs: Sequence[str]) -> int:
        """Segment the cases that wait; return the exit status.

        Args:
            results: their folder, and the cases.
            inputs: as they were named.
        """
        cases = results.cases
        if self.options.spread:
            return self._run_chunks(cases, results.folder)
        if _plain(cases):
            source = inputs[0] if len(inputs) == 1 else str(list(inputs))
        else:
            list_cases(cases.waiting, cases.place)
            source = str(cases.place)
        return launch(self.command(source), self.options.verbose)

    def _run_chunks(self, cases: Cases, folder: Path) -> int:
        """Segment them in parts; those that are done are put in place whatever ends the others."""
        files = [file.absolute() for file in list_cases(cases.waiting, cases.place)]
        place, failures = (cases.place / PARTS).absolute(), []

        def command(chunk: Sequence[Path], part: Path) -> list[str]:
            return self.command(str([str(file) for file in chunk]), output_dir=str(part))

        try:
            chunks = split_cases(files, self.options.workers)
            results = run_chunks(chunks, command, place, *self.options.cluster, device=self.overrides.get("device"))
            failures = [failure for result in results for failure in result.failures]
        finally:
            gather(sorted(place.glob("part_*")), folder, failures)
        return 2 if failures else 0


def _plain(cases: Cases) -> bool:
    """Whether the line can take the inputs as they were named, so that it can be run again by hand."""
    files = all(case.source is None and case.name == case_name(case.path) for case in cases.cases)
    return files and not cases.failures and len(cases.waiting) == len(cases.cases)


def _tell(results: Results, failures: Sequence[Mapping[str, str]], status: int) -> int:
    """Say what is done and what is not, and return the exit status."""
    cases, report = results.cases.cases, results.record.report
    failed = {case_name(failure["case"]) for failure in failures}
    made = sum(not case.done and report(case.name) is not None for case in cases)
    lost = sum(report(case.name) is None and case.name not in failed for case in cases)
    told = f"{made} segmented, {sum(case.done for case in cases)} done before, {len(failures)} failed"
    told += f", {lost} not reached (the same line goes on)" if lost else ""
    print(f"{told}. Results: {results.folder}" + (" (failures.json says why)" if failures else ""))
    return status or (2 if failures or lost else 0)
