"""Whether scans that are scored were trained on: scans known again by their grey values, and by LiTS' own numbers.

Public sets of CT contain each other. LiTS took in the 20 scans of 3D-IRCADb-01, as files with other names, affines and
spacings, so that a model trained on LiTS has seen what looks like an external test set.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.transforms import LoadImage
from monai.utils import optional_import

from ..checks import InputError
from ..files import case_name, read_json, write_json
from .phantoms.registry import cache_folder

tqdm, _ = optional_import("tqdm", name="tqdm")

__all__ = ["IRCADB", "LITS_IRCADB", "Contents", "content_key", "lits_number", "resolved", "shared_scans"]

logger = logging.getLogger(__name__)

IRCADB = "3D-IRCADb-01"
# The LiTS volumes that are 3D-IRCADb-01. Users of both count 27 to 48, 28 to 47, or 28 to 44 with 46 to 48: the widest.
LITS_IRCADB = range(27, 49)

_LITS_NAME = re.compile(r"(?:volume-|liver_)(\d{1,3})")
_LITS_CASES = 131
_LOW, _HIGH = -150, 250  # HU of soft tissue: what is padded, cropped or cut off lies beyond
_LEAST = 8  # different values; an empty volume is like any other
_CHUNK = 1 << 22  # voxels
_WORKERS = 4  # volumes in memory
_CACHE = "contents_1.json"


class Contents:
    """The scans of a data set by their content; looked at when it is called, not before.

    The record holds hashes of grey values and the numbers of public files; neither tells a patient.

    Args:
        images: files of the scans.
        collection: the public collection that they are, where the data set says so.
    """

    def __init__(self, images: Iterable[str | os.PathLike[str]], collection: str | None = None) -> None:
        self.images = [Path(image) for image in images]
        self.collection = collection
        self._found: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        """Read what was not read before, once, with a progress bar; results are kept in the folder for caches.

        Returns:
            ``scans``, the sorted keys of the scans that have one; ``lits``, the numbers of LiTS by file names;
            ``collection``.
        """
        if self._found is None:
            keys = _keys(self.images)
            self._found = {
                "scans": sorted(key for key in keys if key),
                "lits": sorted({number for image in self.images if (number := lits_number(image)) is not None}),
                "collection": self.collection,
            }
        return self._found


def resolved(info: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a data set with its `Contents`, if it has any, found out: plain numbers and text."""
    return {name: value() if isinstance(value, Contents) else value for name, value in info.items()}


def shared_scans(trained: Mapping[str, Any] | None, evaluated: Mapping[str, Any] | None) -> str:
    """What to say where scans that are scored were trained on; empty where nothing is known of such.

    Args:
        trained: a record of `Contents`, from the sidecar of the weights.
        evaluated: the record of what is scored.

    >>> shared_scans({"lits": [26, 28, 29]}, {"collection": "3D-IRCADb-01"}).startswith("2 of the LiTS cases 27 to 48")
    True
    """
    trained, evaluated = trained or {}, evaluated or {}
    seen = set(trained.get("scans", ()))
    scored = evaluated.get("scans", ())
    parts = []
    if shared := sum(key in seen for key in scored):
        parts.append(
            f"{shared} of the {len(scored)} scans scored here are among the {len(seen)} that these weights were "
            "trained on, by their grey values: scores of these say nothing of new patients."
        )
    for one, other, deed in ((trained, evaluated, "trained on"), (evaluated, trained, "scored")):
        numbers = [number for number in one.get("lits", ()) if number in LITS_IRCADB]
        if numbers and other.get("collection") == IRCADB:
            low, high = LITS_IRCADB[0], LITS_IRCADB[-1]
            parts.append(
                f"{len(numbers)} of the LiTS cases {low} to {high} were {deed}, by their file names, and {IRCADB} was "
                f"{'scored' if deed == 'trained on' else 'trained on'}: LiTS holds {IRCADB} under these numbers (28 to "
                "47, or 28 to 44 and 46 to 48, by other counts), so this is no external test."
            )
    return " ".join(parts)


def lits_number(path: str | os.PathLike[str]) -> int | None:
    """The number of a case of LiTS by its public file names; None for other names.

    >>> lits_number("volume-27.nii"), lits_number("imagesTr/liver_27.nii.gz"), lits_number("liver_27_b.nii.gz")
    (27, 27, None)
    """
    match = _LITS_NAME.fullmatch(case_name(path))
    return int(match[1]) if match and int(match[1]) < _LITS_CASES else None


def content_key(values: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> str | None:
    """A key of a CT by what is in it: the number of voxels at each whole HU of soft tissue, hashed.

    The same scan has the same key however its axes are turned and flipped, whatever its affine and file format say,
    whatever stands beyond soft tissue (padding, a cropped margin of air). Resampled, denoised or cut through the body,
    it is another scan.

    Args:
        values: the volume, of any shape, as stored.
        slope: from stored values to HU.
        intercept: from stored values to HU.

    Returns:
        32 hexadecimal digits; None where too few values differ to tell scans apart.
    """
    counts = np.zeros(_HIGH - _LOW + 1, np.int64)
    flat = values.ravel(order="K")
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK].astype(np.float64)
        chunk *= slope
        chunk += intercept - _LOW
        np.rint(chunk, out=chunk)
        chunk = chunk[(chunk >= 0) & (chunk < len(counts))]
        counts += np.bincount(chunk.astype(np.int64), minlength=len(counts))
    if np.count_nonzero(counts) < _LEAST:
        return None
    return hashlib.sha256(counts.astype("<i8").tobytes()).hexdigest()[:32]


def _keys(images: Sequence[Path]) -> list[str | None]:
    """The key of each image, from the cache where its file has not changed; None for a file that can not be read."""
    store = cache_folder() / _CACHE
    stamps = [_stamp(image) for image in images]
    known = _known(store)
    wanted = {stamp: image for stamp, image in zip(stamps, images, strict=True) if stamp and stamp not in known}
    if wanted:
        with ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1)) as pool:
            read = pool.map(_read_key, wanted.values())
            found = list(tqdm(read, total=len(wanted), desc="scans by content", unit="scan", disable=None))
        made = {stamp: key for stamp, (key, whole) in zip(wanted, found, strict=True) if whole}
        try:
            write_json(store, {**_known(store), **made})
        except InputError as error:
            logger.info("the keys of scans are not kept: %s", error)
        known |= made
    return [known.get(stamp) for stamp in stamps]


def _stamp(path: Path) -> str | None:
    """What tells a file of this content from others, without its name; None where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    text = f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def _known(store: Path) -> dict[str, str | None]:
    try:
        content = read_json(store)
    except (InputError, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_key(path: Path) -> tuple[str | None, bool]:
    """The key of a file, and whether it could be read; what can not is told by those who use it."""
    try:
        if path.name.lower().endswith((".nii", ".nii.gz")):
            data = nibabel.load(path).dataobj
            return content_key(np.asanyarray(data.get_unscaled()), float(data.slope), float(data.inter)), True
        return content_key(np.asarray(LoadImage(image_only=True)(path))), True
    except Exception as error:  # readers raise whatever a damaged file leads to
        logger.info("a scan was not looked at for what was trained on (%s).", type(error).__name__)
        return None, False
