"""From HDF5 volumes with dense instances (``raw`` and ``label``, z y x) to a Decathlon folder."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import optional_import

from ...checks import InputError, parse_flag, problem
from ...files import write_json
from ...geometry.blocks import block_majority, block_mean
from ...geometry.subsampling import parse_factor
from ..arguments import parse_integers, parse_numbers
from ..decathlon import atomic_folder, write_dataset, write_volume

h5py, _has_h5py = optional_import("h5py")
find_boundaries, _ = optional_import("skimage.segmentation", name="find_boundaries")

__all__ = ["CLASSES", "classes_from_instances", "convert_hdf5", "hdf5_command"]

CLASSES = {
    "boundary": {"0": "inside", "1": "boundary", "2": "background"},
    "binary": {"0": "background", "1": "object"},
}
_SUFFIXES = (".h5", ".hdf5", ".hdf")


def convert_hdf5(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    classes: str = "boundary",
    raw: str = "raw",
    label: str | None = "label",
    spacing: Sequence[float] | None = None,
    downsample: int | Sequence[int] = 1,
    name: str | None = None,
    licence: str = "not stated",
    reference: str = "not stated",
    overwrite: bool | str = False,
) -> dict[str, Any]:
    """Write HDF5 volumes as a Decathlon folder, whole or not at all.

    Axes are turned from z y x to x y z, a leading channel axis goes last; grey values keep their numbers and dtype.
    The voxel edges (micrometres, from the attribute ``element_size_um``) go into the headers with their unit. What was
    done to each file is in ``conversion.json`` beside the list.

    With `downsample` both are brought to blocks of voxels, as cicek2016unet3d (section 3) works on volumes down-sampled
    by two: grey values to the mean of a block, as float32; an instance takes a block of which objects hold half or
    more, the most frequent one there. Classes are made after that: walls, which a majority of classes would tear
    apart, are closed and one voxel thick on the coarse grid as on the fine one. Voxels grow, and lie where their
    blocks lay.

    Args:
        files: a file, a folder, a glob, or a sequence of such.
        out_dir: folder to make.
        classes: ``"boundary"`` makes 0 inside an instance, 1 its voxels that touch another label, 2 background (the
            order inside, wall, background of the 3D U-Net paper); ``"binary"`` makes 0 background, 1 object (the
            Decathlon's order).
        raw: data set of the grey values: Z Y X or C Z Y X.
        label: data set of the instances: Z Y X, 0 background; None where there are none, and the images are then listed
            under ``test``.
        spacing: voxel edges z, y, x in um, for files without the attribute.
        downsample: voxels of a block, one number for all axes or z, y, x; 1 leaves all as it is.
        name: of the data set; the folder's name by default.
        licence: of the data, for its list and for the sidecar of weights.
        reference: where the data come from.
        overwrite: whether an existing `out_dir` is replaced.

    Returns:
        the report: ``classes`` and, under ``cases``, for each case source, shape, dtype, spacing, voxels of each class.

    Raises:
        InputError: no file, no such data set or attribute, wrong shapes, two files of one name, an existing `out_dir`.

    Note: this needs the package h5py.
    """
    if not _has_h5py:
        raise InputError(
            problem("the package h5py is not installed", "HDF5 files are read with it", "run: pip install h5py")
        )
    if classes not in CLASSES:
        raise InputError(
            problem(f"classes is {classes!r}", f"it must be one of {', '.join(CLASSES)}", "choose one of them")
        )
    sources = _sources(files)
    label = None if label is None or str(label).lower() in ("", "none") else label
    factor = parse_factor(parse_integers(downsample, "downsample"))[::-1]
    spacing = None if spacing is None else parse_numbers(spacing, "spacing", 3)
    report: dict[str, Any] = {"converter": "hdf5", "classes": CLASSES[classes] if label else {}, "cases": {}}
    names = [source.stem for source in sources]
    with atomic_folder(out_dir, overwrite=parse_flag(overwrite, "overwrite")) as folder:
        for part in ("imagesTr", "labelsTr") if label else ("imagesTs",):
            (folder / part).mkdir()
        for source in sources:
            read = _read(source, raw, label, spacing)
            report["cases"][source.stem] = _convert_one(source, folder, classes, factor, *read)
        content = {
            "name": name or Path(out_dir).name,
            "description": "converted from HDF5 with dense instances; see conversion.json",
            "licence": licence,
            "reference": reference,
            "modality": {str(channel): "microscopy" for channel in range(_channels(report["cases"]))},
            "labels": report["classes"],
            "spacing_unit": "micron",
        }
        write_dataset(folder, content, names if label else [], [] if label else names)
        write_json(folder / "conversion.json", report)
    return report


def _convert_one(
    source: Path,
    folder: Path,
    classes: str,
    factor: Sequence[int],
    image: np.ndarray,
    instances: np.ndarray | None,
    edges: Sequence[float],
) -> dict[str, Any]:
    """Write one case and tell what was done."""
    part = "imagesTs" if instances is None else "imagesTr"
    first = [(size - 1) / 2 * edge for size, edge in zip(factor, edges)]
    if max(factor) > 1:
        image, instances = _on_blocks(image, instances, factor)
        edges = tuple(size * edge for size, edge in zip(factor, edges))
    write_volume(folder / part / f"{source.stem}.nii.gz", image, edges, "micron", first=first)
    case = {
        "source": source.name,
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "spacing_um": list(edges),
        "downsampled": list(factor),
    }
    if instances is None:
        return case
    semantic = classes_from_instances(instances, classes)
    write_volume(folder / "labelsTr" / f"{source.stem}.nii.gz", semantic, edges, "micron", first=first)
    counts = np.bincount(semantic.ravel(), minlength=len(CLASSES[classes])).tolist()
    voxels = dict(zip(CLASSES[classes].values(), counts, strict=True))
    return {**case, "instances": len(np.setdiff1d(instances, [0])), "voxels": voxels}


def _on_blocks(
    image: np.ndarray, instances: np.ndarray | None, factor: Sequence[int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Means of grey values, X Y Z (C), and the instances that hold the blocks, X Y Z."""
    native = np.asarray(image, dtype=image.dtype.newbyteorder("="))  # torch knows no other order of bytes
    volume = torch.from_numpy(native if native.ndim == 3 else np.moveaxis(native, -1, 0))
    means = block_mean(volume, factor).float().numpy()
    means = means if native.ndim == 3 else np.moveaxis(means, 0, -1)
    if instances is None:
        return means, None
    numbers = torch.from_numpy(instances.astype(np.int64))
    held = block_mean((numbers != 0).float(), factor) >= 0.5
    return means, torch.where(held, block_majority(numbers, factor, ignore_index=0), 0).numpy()


def _channels(cases: dict[str, Any]) -> int:
    """The number of channels that all cases have."""
    counts = {name: case["shape"][3] if len(case["shape"]) == 4 else 1 for name, case in cases.items()}
    if len(set(counts.values())) > 1:
        raise InputError(
            problem(
                f"the files have different channels ({counts})", "one data set has one number", "convert them apart"
            )
        )
    return next(iter(counts.values()))


def hdf5_command(files: Sequence[str], out_dir: str, **options: Any) -> None:
    """Convert HDF5 volumes and print what was done: the body of ``volseg convert hdf5``.

    Args:
        files: files, folders or globs.
        out_dir: folder to make.
        options: further arguments of `convert_hdf5`.
    """
    report = convert_hdf5(files, out_dir, **options)
    for name, case in report["cases"].items():
        edges = " x ".join(f"{edge:.4g}" for edge in case["spacing_um"])
        counts = ", ".join(f"{key} {count}" for key, count in case.get("voxels", {}).items()) or "no label"
        blocks = (
            f", means of blocks of {' x '.join(map(str, factor))}" if max(factor := case["downsampled"]) > 1 else ""
        )
        print(f"{name}: {' x '.join(map(str, case['shape']))} {case['dtype']}, {edges} um{blocks}; {counts}")
    print(f"wrote {out_dir}: {len(report['cases'])} cases, listed in dataset.json; what was done is in conversion.json")


def classes_from_instances(instances: np.ndarray, classes: str) -> np.ndarray:
    """Class labels from dense instances.

    Args:
        instances: X Y Z, whole numbers, 0 background.
        classes: a key of `CLASSES`.

    Returns:
        X Y Z, uint8.

    >>> classes_from_instances(np.array([[[0, 7, 7, 7, 9]]]), "boundary").tolist()
    [[[2, 1, 0, 1, 1]]]
    """
    if classes == "binary":
        return (instances != 0).astype(np.uint8)
    semantic = np.where(instances != 0, 0, 2).astype(np.uint8)
    semantic[find_boundaries(instances, mode="inner", background=0)] = 1
    return semantic


def _sources(files: Any) -> list[Path]:
    given = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    found: list[Path] = []
    for one in given:
        path = Path(str(one).strip()).expanduser()
        if path.is_dir():
            found += sorted(child for child in path.iterdir() if child.suffix.lower() in _SUFFIXES)
        elif path.is_file():
            found.append(path)
        elif glob.has_magic(str(path)):
            found += sorted(map(Path, glob.glob(str(path))))
        else:
            raise InputError(
                problem(
                    f"'{one}' does not exist", "it must be an HDF5 file, a folder of them or a glob", "check the path"
                )
            )
    if not found:
        raise InputError(
            problem(f"'{files}' holds no HDF5 file", f"they end in {', '.join(_SUFFIXES)}", "name the files themselves")
        )
    stems = [path.stem for path in found]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise InputError(
            problem(
                f"several files are called '{twice[0]}'",
                "a case takes its name from its file",
                "rename one, or convert them apart",
            )
        )
    return found


def _read(
    path: Path, raw: str, label: str | None, spacing: Any
) -> tuple[np.ndarray, np.ndarray | None, tuple[float, float, float]]:
    """Image X Y Z (C), instances X Y Z or None, and edges x, y, z."""
    try:
        with h5py.File(path, "r") as stream:
            image = _dataset(stream, path, raw)
            edges = spacing if spacing is not None else stream[raw].attrs.get("element_size_um")
            instances = None if label is None else _dataset(stream, path, label)
    except OSError as error:
        raise InputError(
            problem(
                f"'{path}' can not be read ({error})", "it must be a whole HDF5 file", "fetch or make the file anew"
            )
        ) from error
    if edges is None or len(edges) != 3 or not np.all(np.isfinite(edges)) or np.min(edges) <= 0:
        raise InputError(
            problem(
                f"'{path}' has voxel edges {edges}",
                "three positive numbers z, y, x in um are needed, as attribute element_size_um of the grey values",
                "pass --spacing [z,y,x]",
            )
        )
    if image.ndim not in (3, 4):
        raise InputError(
            problem(
                f"'{raw}' in '{path}' has shape {image.shape}",
                "it must be Z Y X or C Z Y X",
                "choose another with --raw",
            )
        )
    if instances is not None and instances.shape != image.shape[-3:]:
        raise InputError(
            problem(
                f"'{label}' in '{path}' has shape {instances.shape} beside '{raw}' {image.shape}",
                "both must cover the same voxels",
                "choose another with --raw or --label",
            )
        )
    if instances is not None and not np.issubdtype(instances.dtype, np.integer):
        raise InputError(
            problem(
                f"'{label}' in '{path}' is {instances.dtype}",
                "instances must be whole numbers",
                "choose another with --label",
            )
        )
    return (
        image.T if image.ndim == 3 else image.transpose(3, 2, 1, 0),
        None if instances is None else instances.T,
        tuple(map(float, edges[::-1])),
    )


def _dataset(stream: Any, path: Path, key: str) -> np.ndarray:
    if key not in stream or not hasattr(stream[key], "shape"):
        raise InputError(
            problem(
                f"'{path}' has no data set '{key}'", f"it has: {', '.join(stream)}", "choose with --raw and --label"
            )
        )
    return stream[key][()]
