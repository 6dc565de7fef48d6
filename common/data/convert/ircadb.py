"""From the DICOM folders of 3D-IRCADb-01 to a Decathlon folder of livers and their tumours.

Soler et al., "3D image reconstruction for comparison of algorithm database", IRCAD, 2010: 20 portal-venous CT,
each with a mask for every structure that was drawn in it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import nibabel
import numpy as np

from ...checks import InputError, problem
from ..overlap import IRCADB
from .dicom import Files, Series, has_pydicom, read_mask, read_series
from .pairs import only_source
from .sources import Case, Dropped, hounsfield_fault
from .writing import tell, write_cases

__all__ = ["convert_ircadb", "ircadb_command"]

_IMAGE, _MASKS = "PATIENT_DICOM", "MASKS_DICOM"
_LABELS = {"0": "background", "1": "liver", "2": "tumour"}
# by the option `lesions`
_LESIONS = {
    "released": re.compile(r"livertumou?r|stone|metastasecto|liver.yst"),
    "tumours": re.compile(r"livertumou?r"),
}
_DEPTH = 4  # levels of folders that archives put above the cases


def convert_ircadb(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    lesions: str = "released",
    name: str | None = None,
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Write the cases of 3D-IRCADb-01 as a Decathlon folder of liver (1) and tumour (2), whole or not at all.

    Slices are ordered by their positions, units are Hounsfield units by the headers' scale, and images keep the grid of
    the scanner. The liver is the mask ``liver`` with all that counts as a tumour. A case whose slices are missing,
    repeated with other content, sheared or without units, or one of whose masks does not fit, is left out and listed
    with the reason; what was odd and bearable is listed under ``notes``.

    Reading: jin2020raunet merges masks by the names of their folders, stones and cysts among the tumours; that is
    ``lesions="released"``. A mask that says tumour wins over the liver.

    Args:
        source: the unpacked data set or one case of it: folders such as ``3Dircadb1.7`` that hold ``PATIENT_DICOM`` and
            ``MASKS_DICOM``, as folders or as the zip files that are handed out.
        out_dir: folder to make.
        lesions: ``"released"`` takes masks whose names begin with ``livertumor``, ``stone``, ``metastasecto`` or
            ``liver?yst``; ``"tumours"`` takes ``livertumor`` alone.
        name: of the data set; the folder's name by default.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report of `writing.write_cases`; a case has ``shape``, ``spacing`` in mm, range of ``hounsfield`` units,
        ``voxels`` of each class, ``tumours`` (the masks that were merged), ``outside`` (tumour voxels beyond the mask
        ``liver``) and ``notes``.

    Raises:
        InputError: without pydicom; no case in `source`, no case left, an existing `out_dir`, other `lesions`.
    """
    if not has_pydicom:
        raise InputError(
            problem(
                "the package pydicom is not installed",
                "DICOM files are read with it",
                'run: pip install "volseg[formats]"',
            )
        )
    if lesions not in _LESIONS:
        known = ", ".join(_LESIONS)
        raise InputError(problem(f"lesions is {lesions!r}", f"it must be one of {known}", "choose one of them"))
    cases = _cases(only_source(source))
    content = {
        "description": f"{IRCADB}, liver and tumours ({lesions}); see conversion.json",
        "collection": IRCADB,
        "licence": "as stated by IRCAD, from where the data come",
        "reference": "Soler et al., 3D image reconstruction for comparison of algorithm database, IRCAD, 2010",
        **({"name": name} if name else {}),
    }
    convert_one = functools.partial(_convert_one, tumours=_LESIONS[lesions])
    return write_cases(cases, out_dir, convert_one, content, _LABELS, overwrite=overwrite)


def ircadb_command(sources: Sequence[str], out_dir: str, **options: Any) -> None:
    """Convert and print what was done: the body of ``volseg convert 3dircadb``.

    Args:
        sources: the data set's folder.
        out_dir: folder to make.
        options: further arguments of `convert_ircadb`.
    """
    tell(convert_ircadb(sources, out_dir, **options), out_dir)


def _cases(source: Path) -> list[Case]:
    """The cases at `source` or some levels below, by number; one without masks is refused."""
    level = [source.resolve()]
    for _ in range(_DEPTH + 1):
        if folders := [one for one in level if _part(one, _IMAGE) or _part(one, _MASKS)]:
            break
        level = [one for base in level for one in sorted(base.iterdir()) if one.is_dir() and one.name[0] != "."]
    if not folders:
        raise InputError(
            problem(
                f"'{source}' holds no case",
                f"a case is a folder such as 3Dircadb1.7 with {_IMAGE} and {_MASKS}, or both as .zip",
                "name the folder of the unpacked data set",
            )
        )
    numbered = sorted(folders, key=lambda folder: [int(number) for number in re.findall(r"\d+", folder.name)])
    cases = []
    for folder in numbered:
        image, masks = _part(folder, _IMAGE), _part(folder, _MASKS)
        refused = None if image and masks else f"it has no {_MASKS if image else _IMAGE}"
        cases.append(Case(folder.name.replace(".", "_"), image, masks, refused=refused))
    return cases


def _part(folder: Path, name: str) -> Path | None:
    """The folder of that name in a case, or else the archive."""
    if (folder / name).is_dir():
        return folder / name
    return folder / f"{name}.zip" if (folder / f"{name}.zip").is_file() else None


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[dict[str, Files]]:
    """The files below a folder or in an archive: bytes by file name, by the name of the folder they lie in."""
    found: dict[str, dict[str, Any]] = {}
    if place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.is_file():
                found.setdefault(path.parent.name, {})[path.name] = path.read_bytes
        yield found
        return
    try:
        with zipfile.ZipFile(place) as archive:
            for entry in archive.infolist():
                path = PurePosixPath(entry.filename)
                if not entry.is_dir() and "__MACOSX" not in path.parts:
                    found.setdefault(path.parent.name or _IMAGE, {})[path.name] = functools.partial(archive.read, entry)
            yield found
    except (zipfile.BadZipFile, OSError) as error:
        raise Dropped(f"{place.name} can not be read ({type(error).__name__})") from error


def _convert_one(case: Case, folder: Path, tumours: re.Pattern[str]) -> dict[str, Any]:
    """Check and write one case, and tell what was done."""
    try:
        with _opened(case.image) as parts:
            series = read_series(_only_series(parts))
        with _opened(case.label) as parts:
            labels, notes = _labels(parts, series, tumours)
    except (ValueError, TypeError, AttributeError) as error:  # of headers with numbers that are none
        raise Dropped(f"its headers can not be understood ({type(error).__name__})") from error
    notes["notes"] = series.notes + notes["notes"]
    if fault := hounsfield_fault(series.values, 1.0, 0.0, labels > 0, name="liver"):
        unscaled = "; its headers have no rescale slope and intercept" * any("rescale" in note for note in series.notes)
        raise Dropped(fault + unscaled)
    _save(series.values, series, folder / "imagesTr" / f"{case.name}.nii.gz")
    _save(labels, series, folder / "labelsTr" / f"{case.name}.nii.gz")
    voxels = np.bincount(labels.ravel(order="K"), minlength=len(_LABELS))
    return {
        "shape": list(labels.shape),
        "spacing": np.linalg.norm(series.affine[:3, :3], axis=0).round(6).tolist(),
        "hounsfield": [float(series.values.min()), float(series.values.max())],
        "voxels": dict(zip(_LABELS.values(), voxels.tolist(), strict=True)),
        **notes,
    }


def _only_series(parts: dict[str, Files]) -> Files:
    filled = {name: files for name, files in parts.items() if any(file[0] != "." for file in files)}
    if len(filled) != 1:
        raise Dropped(f"its {_IMAGE} holds {'no slice' if not filled else 'several folders of slices'}")
    return next(iter(filled.values()))


def _labels(parts: dict[str, Files], series: Series, tumours: re.Pattern[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """Classes X Y Z (uint8) and what is to be remembered of them."""
    names = {name.lower(): name for name in parts}
    if "liver" not in names:
        raise Dropped("it has no mask 'liver'")
    merged = sorted(name for name in names if tumours.match(name))
    liver, by_name = read_mask(parts[names["liver"]], series, "liver")
    labels = liver.astype(np.uint8)
    for name in merged:
        mask, unplaced = read_mask(parts[names[name]], series, name)
        labels[mask] = 2
        by_name |= unplaced
    outside = int(np.count_nonzero((labels == 2) & ~liver))
    if not labels.any():
        raise Dropped("its mask 'liver' is empty")
    notes = ["its masks have no positions of their own: they were paired with slices by file names"] * by_name
    return labels, {"tumours": merged, "outside": outside, "notes": notes}


def _save(values: np.ndarray, series: Series, path: Path) -> None:
    image = nibabel.Nifti1Image(values, series.affine, dtype=values.dtype)
    image.set_qform(series.affine, code=1)
    image.set_sform(series.affine, code=1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
