"""The cases of a prediction: which are done, and where the line finds the others."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...checks import InputError, problem
from ...dicom.series import Series, choose_series
from ...dicom.volume import stage_series
from ...files import case_name, sha256, write_json
from ...transforms.save import CaseNames
from .header import data_beside, whole_hash
from .inputs import Source, link_or_copy, nothing_found
from .request import Record

__all__ = ["Case", "Cases", "failure", "list_cases"]


@dataclass(frozen=True)
class Case:
    """One volume to segment.

    Args:
        name: of its results.
        path: the file that is segmented.
        done: whether its results are there.
        source: where its DICOM series lies; None for a volume in a file.
        series: the name of that series.
    """

    name: str
    path: Path = field(repr=False)
    done: bool
    source: Source | None = None
    series: str = ""


class Cases:
    """The cases of a prediction as they are found, and what could not become one.

    Args:
        place: a private folder for what is staged.
        record: what is done; it takes up what is staged.
        again: whether nothing counts as done.

    Attributes:
        cases: in the order of the inputs, volumes in files first.
        failures: ``{"case": name, "error": text}``.
    """

    def __init__(self, place: Path, record: Record, again: bool = False) -> None:
        self.place, self.record, self.again = place, record, again
        self.cases: list[Case] = []
        self.failures: list[dict[str, str]] = []
        self._held: dict[str, str] = {}  # hashes of the series that are cases

    @property
    def waiting(self) -> list[Case]:
        """Those that are not done."""
        return [case for case in self.cases if not case.done]

    def take_volumes(self, volumes: Sequence[Path]) -> None:
        """Take volumes in files. Those of one name in several folders get names by all that were named.

        Args:
            volumes: their files, absolute.
        """
        names = CaseNames()
        # hashes of what is done already take a while for many
        for path in tqdm(volumes, desc="looking for what is done", unit="case", leave=False, disable=None):
            name = names(path)
            before = None if self.again else self.record.report(name)
            self.cases.append(Case(name, path, self._is_input(before, name, path)))

    def _is_input(self, before: Mapping[str, Any] | None, name: str, path: Path) -> bool:
        """Whether a report is that of what a file holds now; of a header of its own, whether that of both files is.

        Args:
            before: the report; None where there is none that counts.
            name: of the case.
            path: its file.
        """
        if not path.is_file():
            return False
        known, now = self.record.headers.pop(name, None), whole_hash(path)
        if now is None:
            return before is not None and before["input_sha256"] == sha256(path)
        self.record.headers[name] = now
        return before is not None and before["input_sha256"] is None and known == now

    def take_series(self, sources: Sequence[Source], choose: Mapping[str, Any]) -> None:
        """Stage DICOM series as NIfTI under neutral names, those that are done excepted.

        A series or a place that can not be read is a failure of its own, unless nothing else was named.

        Args:
            sources: where they are.
            choose: ``wanted``, ``modality`` and ``ask`` of :func:`~common.dicom.series.choose_series`.

        Raises:
            InputError: when the only input can not be read, or it is open which of its series is meant.
        """
        alone = len(sources) == 1 and not self.cases
        with tqdm(total=len(sources), desc="staging", unit="series", disable=None) as bar:
            for source in sources:
                try:
                    with source.opened(self.place) as found:
                        if not found and source.volumes == 0:
                            raise nothing_found(source.name)
                        chosen = choose_series(found, **choose) if found or not source.volumes else []
                        bar.total += len(chosen) - 1
                        for series in chosen:
                            self._take(series, source, bar)
                            bar.update()
                except Exception as error:  # any fault of one place must leave the others alone
                    if alone and not self.cases:
                        raise
                    self._note(source.name, error, bar)
                    bar.update()

    def _take(self, series: Series, source: Source, bar: tqdm) -> None:
        """One series: there already, done, staged or failed."""
        if series.name in self._held:
            self._take_again(series, source, bar)
            return
        taken = {case.name for case in self.cases}
        name = series.name if series.name not in taken else f"{series.name}_dicom"
        path, known = self.place / f"{name}.nii.gz", self.record.series.get(series.name, {})
        try:
            digest = _digest(series)
            before = None if self.again or known.get("files") != digest else self.record.report(name)
            done = before is not None and before["input_sha256"] == known.get("input_sha256")
            if not done:
                stage_series(series, self.place).replace(path)
                self.record.series[series.name] = {"files": digest, "input_sha256": sha256(path)}
        except Exception as error:  # likewise of one series
            self._note(series.name, error, bar)
            return
        self.cases.append(Case(name, path, done, source, series.name))
        self._held[series.name] = digest
        voxels = "x".join(map(str, series.shape))
        bar.write(f"{source.name}: {series.name}, {series.modality}, {voxels} voxels", file=sys.stdout)

    def _take_again(self, series: Series, source: Source, bar: tqdm) -> None:
        """A series of a name that is taken: the same once more, or another that was given its UID."""
        if _digest(series) == self._held[series.name]:
            bar.write(f"{source.name}: {series.name} was named before", file=sys.stdout)
            return
        came = f"{series.name} was named before and held other images"
        rule = "results are named by the UID of a series, which is its alone"
        remedy = "give the two UIDs of their own, or predict one of them into another folder"
        self._note(source.name, InputError(problem(came, rule, remedy)), bar)

    def _note(self, name: str, error: Exception, bar: tqdm) -> None:
        self.failures.append(failure(name, error, "it must hold whole DICOM images"))
        bar.write(f"{name} failed: {self.failures[-1]['error']}", file=sys.stderr)


def _digest(series: Series) -> str:
    """A hash of what a series' files hold, wherever they lie."""
    return hashlib.sha256("".join(sorted(map(sha256, series.files))).encode()).hexdigest()


def failure(name: str, error: Exception, rule: str) -> dict[str, str]:
    """An entry of ``failures.json``. Libraries quote what headers hold: an error that is not ours is told by its type.

    Args:
        name: of the case.
        error: what was raised.
        rule: what the input would have to keep, for such an error.
    """
    if isinstance(error, InputError):
        return {"case": name, "error": str(error)}
    came = f"{name} can not be used ({type(error).__name__})"
    return {"case": name, "error": problem(came, rule, "export the series anew, or leave it out")}


def list_cases(cases: Sequence[Case], place: Path) -> list[Path]:
    """Give cases the names of their results, and list them in a ``dataset.json``.

    Args:
        cases: to be segmented.
        place: the folder of the list, in which the staged ones lie already.

    Returns:
        their files, in the order of `cases`.
    """
    files = []
    for case in cases:
        if case.source is not None:
            files.append(case.path)
            continue
        folder = place / case.name
        folder.mkdir(mode=0o700)
        files.append(folder / (case.name + case.path.name[len(case_name(case.path)) :]))
        link_or_copy(case.path, files[-1])
        for part, beside in data_beside(case.path, files[-1]):
            beside.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(part, beside)
    listed = [file.relative_to(place).as_posix() for file in files]
    write_json(place / "dataset.json", {"training": [], "test": listed})
    return files
