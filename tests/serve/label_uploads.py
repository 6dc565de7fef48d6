"""Zips and series as they are sent to MONAI Label."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from dicom_series import encoded, slices


def write_zip(path: Path, files: dict[str, bytes], change=None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            if change is not None:
                change(entry)
            archive.writestr(entry, content)
    return path


def write_slices(folder: Path, change=None, **more) -> list[Path]:
    """A CT series whose files are not in the order of its slices."""

    def whole(one, number):
        one.Modality, one.SeriesInstanceUID = "CT", "1.2.3"
        if change is not None:
            change(one, number)

    made = slices(np.arange(9 * 8 * 6, dtype=np.uint16).reshape(9, 8, 6), change=whole, **more)
    folder.mkdir(exist_ok=True)
    for number, one in made.items():
        (folder / f"{(number * 5) % 6}").write_bytes(encoded(one))
    return sorted(folder.iterdir())
