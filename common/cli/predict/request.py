"""What the results in a folder were asked for, so that those that are there already are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from ...bundling.ids import lay, merge, normal_id
from ...checks import InputError
from ...files import read_json, sha256, write_json
from ...handlers.cases import without_paths

__all__ = ["Record", "label_file", "parsed", "places", "request_of"]

_NAME, _REPORT = "predict.json", "_report.json"
# where things lie and on what they are computed is not what they are
_NEUTRAL = ("bundle_root", "dataset_dir", "output_dir", "model_path", "device")


def parsed(bundle: Path, configs: Sequence[Path], overrides: Mapping[str, str]) -> ConfigParser:
    """The config of a line.

    Args:
        bundle: its folder.
        configs: of the line.
        overrides: config entries by id, as typed.
    """
    merged = merge(configs)
    told = {name: _value(text) for name, text in overrides.items() if normal_id(name).split("::")[0] in merged}
    return ConfigParser(lay(merged, {"bundle_root": str(bundle)}, told))


def places(parser: ConfigParser) -> tuple[Path, Path]:
    """Where a line will write its results, and where it will read its weights.

    Args:
        parser: config of the line.

    Returns:
        ``output_dir`` and ``model_path``.
    """
    return tuple(Path(str(parser.get_parsed_content(name))) for name in ("output_dir", "model_path"))


def _value(text: str) -> Any:
    """A value as MONAI's command line reads it."""
    return {"null": None, "true": True, "false": False}.get(text, DefaultParseValue(text))


def request_of(
    metadata: Mapping[str, Any],
    configs: Sequence[Path],
    overlays: Sequence[str],
    overrides: Mapping[str, str],
    weights: Path,
) -> dict[str, Any]:
    """What decides the results, whatever the input: bundle, weights and settings.

    Args:
        metadata: of the bundle.
        configs: of the line.
        overlays: their names, without the first.
        overrides: config entries by name, as typed; folders and device are left out, of other paths all but their ends.
        weights: their file.
    """
    merged = {name: value for name, value in merge(configs).items() if name not in _NEUTRAL}
    chosen = {name: str(value) for name, value in overrides.items() if name not in _NEUTRAL}
    told = json.dumps([merged, chosen], sort_keys=True)
    return {
        "bundle": metadata.get("name"),
        "version": metadata.get("version"),
        "overlays": [Path(name).name for name in overlays],
        "overrides": without_paths(chosen),
        "weights": sha256(weights) if weights.is_file() else None,
        "settings": hashlib.sha256(told.encode()).hexdigest(),
    }


def label_file(name: str, report: Mapping[str, Any]) -> str:
    """The file of a case's label: as its report tells, or as the bundles name it."""
    return str(report.get("label_file") or f"{name}_seg.nii.gz")


class Record:
    """``predict.json`` in the folder of results: the request that they answer.

    A case is done where its report tells of the same input, its label is there, and the report is not one of those that
    were there before this request was made; these are listed by their hashes, so that a run which was stopped leaves
    nothing that could be mistaken. Where the report has no hash, of headers whose voxels lie in a file of their own,
    ``headers`` has that of both.

    Args:
        folder: of the results.
        request: see `request_of`.

    Raises:
        InputError: when there is a file of that name that is no JSON.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        self.folder, self.request = folder, json.loads(json.dumps(request))
        before = read_json(folder / _NAME) if (folder / _NAME).is_file() else {}
        before = before if isinstance(before, dict) else {}
        asked = before.get("request", {})
        self.same = asked == self.request
        self.differing = [name for name in self.request if asked and asked.get(name) != self.request[name]]
        self.series: dict[str, dict[str, str]] = dict(before.get("series", {}))
        self.headers: dict[str, str] = dict(before.get("headers", {}))
        self.earlier: dict[str, str] = dict(before.get("earlier", {})) if self.same else {}
        if not self.same:
            self.forget(path.name.removesuffix(_REPORT) for path in folder.glob(f"[!.]*{_REPORT}"))

    @property
    def stale(self) -> int:
        """How many cases have results of another request."""
        return len(self.earlier)

    def forget(self, names: Iterable[str]) -> None:
        """Take what is there of these cases for results of an earlier request."""
        for name in names:
            with suppress(FileNotFoundError):
                self.earlier[name] = sha256(self._path(name))

    def write(self) -> None:
        """Write the file; reports that are new by now are no earlier ones any more."""
        self.earlier = {name: digest for name, digest in self.earlier.items() if self._is(name, digest)}
        content = {
            "request": self.request,
            "earlier": self.earlier,
            "series": self.series,
            "headers": self.headers,
        }
        write_json(self.folder / _NAME, content)

    def report(self, name: str) -> dict[str, Any] | None:
        """The report of a case that answers this request and whose label is there; None where there is none."""
        path = self._path(name)
        if not path.is_file() or (name in self.earlier and self._is(name, self.earlier[name])):
            return None
        with suppress(InputError):
            report = read_json(path)
            if isinstance(report, dict) and report.get("case") == name and "input_sha256" in report:
                return report if (self.folder / label_file(name, report)).is_file() else None
        return None

    def reports(self) -> dict[str, dict[str, Any]]:
        """All such reports by the names of their cases, in the order of these."""
        names = sorted(path.name.removesuffix(_REPORT) for path in self.folder.glob(f"[!.]*{_REPORT}"))
        return {name: report for name in names if (report := self.report(name)) is not None}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_REPORT}"

    def _is(self, name: str, digest: str) -> bool:
        return self._path(name).is_file() and sha256(self._path(name)) == digest
