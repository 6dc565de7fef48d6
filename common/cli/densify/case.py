"""The case that ``volseg densify`` trains on, made of an image and slices; answers brought back to their grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch

from ...checks import InputError, problem
from ...data.annotation import Annotation
from ...data.arguments import parse_integer
from ...data.decathlon import atomic_folder, write_dataset
from ...data.volume_file import VolumeFile
from ...files import atomic_path
from ...geometry.blocks import block_majority, block_mean
from ...geometry.subsampling import upsample_nearest
from ..words import split_names

__all__ = [
    "MADE_BY",
    "class_names",
    "coarse_planes",
    "parse_downsample",
    "read_array",
    "refined",
    "save_grid",
    "write_case",
]

MADE_BY = "volseg densify"
_AS_STORED = {"bool": np.uint8, "float16": np.float32, "int64": np.int32, "uint64": np.uint32}  # for NIfTI readers


def class_names(values: Sequence[int], given: str = "", before: Sequence[str] = ()) -> list[str]:
    """Names of the classes, in their order.

    Args:
        values: the user's label value of each class.
        given: as on a command line, separated by commas; empty for "background" where the value is 0, and numbers.
        before: names that the first classes have already.

    Raises:
        InputError: for another number of names, or a name twice.

    >>> class_names((0, 100)), class_names((0, 100), "brain,tumour")
    (['background', 'label 100'], ['brain', 'tumour'])
    """
    names = split_names(given)
    if not names:
        found = ["background" if value == 0 else f"label {value}" for value in values]
        return [*before, *found[len(before) :]]
    if len(names) != len(values) or len(set(names)) != len(names):
        came = f"class_names are {', '.join(names)}, and the slices hold the values {', '.join(map(str, values))}"
        raise InputError(problem(came, "each value has one name, in that order", "pass --class_names A,B"))
    return names


def parse_downsample(value: int | str) -> int:
    """By how many voxels along each axis one is made, from 1.

    Raises:
        InputError: for anything else.
    """
    factor = parse_integer(value, "downsample")
    if factor < 1:
        raise InputError(problem(f"downsample is {factor}", "it must be 1 or more", "pass for example --downsample 2"))
    return factor


def coarse_planes(planes: Sequence[Sequence[int]], factor: int) -> list[list[int]]:
    """Planes of the image's grid as those of the grid of its blocks."""
    return [sorted({index // factor for index in of_axis}) for of_axis in planes]


def write_case(
    folder: Path, image: VolumeFile, drawn: Annotation, names: Sequence[str], factor: int = 1, case: str = "volume"
) -> tuple[np.ndarray, list[str]]:
    """Write a Decathlon folder of one case, whole or not at all: the image, its slices as classes, the list.

    Axes and voxels are the image's own; with a factor, grey values are means of blocks of voxels, and a block has the
    class that most of its labelled voxels have.

    Args:
        folder: to be made; one that is there is replaced.
        image: the volume.
        drawn: its slices.
        names: of the classes.
        factor: voxels of a block along each axis.
        case: its name.

    Returns:
        the label that was written, and what deserves to be known.
    """
    grey, label = image.array, drawn.label
    affine = np.array(image.affine, float)
    if factor > 1:
        channels = torch.from_numpy(np.ascontiguousarray(_stored(grey)).reshape(*image.shape, -1))
        grey = block_mean(channels.movedim(-1, 0), factor).movedim(0, -1).numpy().astype(np.float32)
        grey = grey if image.array.ndim == 4 else grey[..., 0]
        label = block_majority(torch.from_numpy(label), factor, drawn.ignore_index).numpy()
        # the first block's centre
        affine[:3, 3] += affine[:3, :3] @ np.full(3, (factor - 1) / 2)
        affine[:3, :3] *= factor
    missing = set(range(drawn.num_classes)) - set(np.unique(label))
    notes = [
        f"Warning: '{names[number]}' has no voxel any more at --downsample {factor}."
        for number in sorted(missing)
        if drawn.voxels[number]
    ]
    labels = {str(number): name for number, name in enumerate([*names, "unlabelled"])}
    modality = {str(channel): f"channel {channel}" for channel in range(image.channels)}
    content = {"name": MADE_BY, "modality": modality, "labels": labels}
    with atomic_folder(folder, overwrite=True) as made:
        for part, array in (("imagesTr", grey), ("labelsTr", label)):
            (made / part).mkdir()
            save_grid(made / part / f"{case}.nii.gz", array, affine, image.unit)
        write_dataset(made, content, [case])
    return label, notes


def refined(array: np.ndarray, factor: int, shape: Sequence[int]) -> np.ndarray:
    """A map of the grid of blocks on the image's own grid: each voxel takes what its block has."""
    if factor == 1:
        return array
    return upsample_nearest(torch.from_numpy(np.ascontiguousarray(array)), factor, tuple(shape)).numpy()


def save_grid(path: Path, array: np.ndarray, affine: np.ndarray, unit: str) -> None:
    """Write a NIfTI file, whole or not at all."""
    stored = _stored(array)
    image = nibabel.Nifti1Image(stored, affine, dtype=stored.dtype)
    image.header.set_xyzt_units(unit)
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def read_array(path: Path) -> np.ndarray:
    """The voxels of a NIfTI file in the dtype of the file."""
    return np.asanyarray(nibabel.load(path).dataobj)


def _stored(array: np.ndarray) -> np.ndarray:
    dtype = _AS_STORED.get(array.dtype.name)
    if dtype is None:
        return array
    if np.issubdtype(dtype, np.integer) and array.size and array.dtype != bool:
        limits = np.iinfo(dtype)
        dtype = dtype if limits.min <= array.min() and array.max() <= limits.max else np.float64
    return array.astype(dtype)
