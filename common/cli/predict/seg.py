"""DICOM SEG beside the labels of cases that came as DICOM."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import nibabel
import numpy as np
from tqdm import tqdm

from ...dicom.segmentation import Algorithm, check_segments, write_segmentation
from ...dicom.series import Series
from .folder import Results
from .inputs import Source
from .stage import Case, failure

__all__ = ["Segmentations"]


class Segmentations:
    """Writes the DICOM SEG of every case whose label is there and whose object is not.

    Args:
        metadata: of the bundle.

    Raises:
        InputError: when the bundle names no codes for its classes, or highdicom is not installed.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata, self.segments = metadata, metadata.get("dicom_segments")
        check_segments(self.segments, str(metadata.get("name")))

    def write(self, results: Results) -> list[dict[str, str]]:
        """Write what is wanted; the places of the series are opened once more, one after the other.

        Args:
            results: of the call; its cases name their series.

        Returns:
            ``{"case": name, "error": text}`` for each that could not be written.
        """
        cases = results.cases.cases
        wanted: dict[Source, list[Case]] = {}
        for case in cases:
            there = results.record.report(case.name) is not None and not results.segmentation(case.name).is_file()
            if case.source is not None and there:
                wanted.setdefault(case.source, []).append(case)
        if files := sum(case.source is None for case in cases):
            print(f"{files} of {len(cases)} cases are volumes in files: DICOM SEG is written of DICOM series alone.")
        failures: list[dict[str, str]] = []
        total = sum(map(len, wanted.values()))
        with tqdm(total=total, desc="DICOM SEG", unit="case", disable=None if total else True) as bar:
            for source, waiting in wanted.items():
                failures += self._of_source(source, waiting, results, bar)
        return failures

    def _of_source(self, source: Source, cases: list[Case], results: Results, bar: tqdm) -> list[dict[str, str]]:
        failures, waiting = [], list(cases)
        try:
            with source.opened(results.cases.place) as found:
                series = {one.name: one for one in found}
                while waiting:
                    case = waiting.pop(0)
                    try:
                        self._of_case(case, series[case.series], results)
                    except Exception as error:  # any fault of one case must leave the others alone
                        failures.append(_note(case, error, bar))
                    bar.update()
        except Exception as error:  # the place can not be opened any more
            failures += [_note(case, error, bar) for case in waiting]
        return failures

    def _of_case(self, case: Case, series: Series, results: Results) -> None:
        image = nibabel.load(results.label(case.name))
        request = results.record.request
        made_by = Algorithm(str(request["bundle"]), str(request["version"]), request["weights"] or "")
        label, out = np.asarray(image.dataobj), results.segmentation(case.name)
        names = list((results.record.report(case.name) or {}).get("volumes") or ())  # as overrides have made them
        write_segmentation(label, image.affine, series, self.segments, out, made_by, names or None)


def _note(case: Case, error: Exception, bar: tqdm) -> dict[str, str]:
    noted = failure(case.name, error, "a DICOM SEG lies on the images of its series")
    noted["error"] = f"no DICOM SEG was written: {noted['error']}"
    bar.write(f"{case.name}: {noted['error']}", file=sys.stderr)
    return noted
