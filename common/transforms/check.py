"""A look at what was loaded, before anything is computed from it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor

from ..checks import InputError, parse_flag, problem
from .source import source_of

__all__ = ["CheckVolume", "CheckVolumeD", "CheckVolumeDict", "CheckVolumed"]

# Corners of image and label may lie this far apart, in voxels: headers round their numbers.
_CORNER_TOLERANCE = 0.05


class CheckVolume(Transform):
    """Refuse a volume that no network should see, and say what is wrong with it; return it unchanged otherwise.

    Args:
        channels: number of channels the image must have.
        num_classes: labels must be 0 to `num_classes` - 1; None allows every whole number from 0.
        ignore_index: the one further label allowed, which marks voxels without annotation; None allows none.
        foreground: a label must hold a class above 0, for methods that are trained around it.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        foreground: bool | str = False,
    ) -> None:
        self.channels = channels
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.foreground = parse_flag(foreground, "foreground")

    def __call__(
        self, img: NdarrayOrTensor, label: NdarrayOrTensor | None = None, name: str = "image", label_name: str = "label"
    ) -> NdarrayOrTensor:
        """Check `img`, and `label` where one is given.

        Args:
            img: C H W D.
            label: 1 H W D, whole numbers, on the image's grid.
            name: what messages call the image where it carries no file name.
            label_name: what messages call the label where it carries none.

        Returns:
            `img`, unchanged.

        Raises:
            InputError: naming the file, the rule and the remedy.
        """
        name = source_of(img, f"'{name}'")
        _check_grid(img, name, self.channels, "image")
        _check_values(convert_to_tensor(img, track_meta=False), name)
        if label is not None:
            label_name = source_of(label, f"'{label_name}'")
            _check_grid(label, label_name, 1, "label")
            _check_same_grid(img, label, name, label_name)
            self._check_labels(convert_to_tensor(label, track_meta=False), label_name)
        return img

    def _check_labels(self, label: torch.Tensor, name: str) -> None:
        whole = label if not label.is_floating_point() else label.long()
        if whole is not label and not torch.equal(whole.to(label.dtype), label):
            odd = label[whole.to(label.dtype) != label].unique()[:5].tolist()
            raise InputError(
                problem(
                    f"label {name} holds {odd}, among others" if len(odd) > 1 else f"label {name} holds {odd[0]}",
                    "labels must be whole numbers",
                    "save it without interpolation or scaling",
                )
            )
        low, high = (int(bound) for bound in torch.aminmax(whole))
        # Counting is faster than sorting, where the range is small enough to count in.
        flat = whole.flatten().long()
        present = (
            torch.bincount(flat - low).nonzero().flatten() + low if high - low < 2**16 else flat.unique()
        ).tolist()
        declared = [value for value in present if value != self.ignore_index]
        if not declared:
            raise InputError(
                problem(
                    f"label {name} is {self.ignore_index} everywhere",
                    f"{self.ignore_index} means unlabelled, and something must be labelled",
                    "annotate a slice of it or take it out of the list",
                )
            )
        if declared[0] < 0 or (self.num_classes is not None and declared[-1] >= self.num_classes):
            self._refuse(present, name)
        if self.foreground and declared[-1] == 0:
            raise InputError(
                problem(
                    f"label {name} holds no class above 0",
                    "training goes around what is labelled, so that each case needs some",
                    "correct the label, or take the case out of the list",
                )
            )

    def _refuse(self, found: list[int], name: str) -> None:
        shown = f"{found[:12]}" + (f" and {len(found) - 12} more" if len(found) > 12 else "")
        classes = "0 or more" if self.num_classes is None else f"0 to {self.num_classes - 1}"
        unlabelled = f", or {self.ignore_index} for unlabelled" if self.ignore_index is not None else ""
        remedy = "renumber the labels, or set num_classes to their number"
        if self.ignore_index is None and self.num_classes is not None and found[-1] == self.num_classes:
            remedy += f", or ignore_index to {found[-1]} if it means unlabelled"
        raise InputError(problem(f"label {name} holds {shown}", f"labels must be {classes}{unlabelled}", remedy))


class CheckVolumed(MapTransform):
    """Dictionary form of `CheckVolume`: to be placed right after loading.

    Args:
        keys: the images.
        channels: as of `CheckVolume`.
        label_key: their label; it must lie on the same grid.
        num_classes: as of `CheckVolume`.
        ignore_index: as of `CheckVolume`.
        allow_missing_keys: do not raise when an image key is missing.
        foreground: as of `CheckVolume`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: int,
        label_key: str | None = None,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        allow_missing_keys: bool = False,
        foreground: bool | str = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key = label_key
        self.check = CheckVolume(channels, num_classes, ignore_index, foreground)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Check the entries and return them unchanged, in a new dictionary."""
        for key in self.key_iterator(data):
            label = None if self.label_key is None else data[self.label_key]
            self.check(data[key], label, name=str(key), label_name=str(self.label_key))
        return dict(data)


CheckVolumeD = CheckVolumeDict = CheckVolumed


def _check_grid(volume: Any, name: str, channels: int, what: str) -> None:
    shape = tuple(volume.shape)
    if len(shape) != 4:
        raise InputError(
            problem(
                f"{what} {name} has shape {shape} after loading",
                "it must be one channel axis and three axes in space",
                "split time series and convert flat images to volumes first",
            )
        )
    if 0 in shape:
        raise InputError(problem(f"{what} {name} has shape {shape}", "no axis may be empty", "make the file anew"))
    if shape[0] != channels:
        remedy = (
            "save the label as one channel of whole numbers"
            if what == "label"
            else "split a series of volumes into files, or make the network's in_channels the number of channels"
        )
        raise InputError(
            problem(f"{what} {name} has {shape[0]} channels (shape {shape})", f"it must have {channels}", remedy)
        )


def _check_values(image: torch.Tensor, name: str) -> None:
    # The bounds tell all: aminmax hands NaN on, an infinite value is a bound, and equal bounds mean constant.
    lows, highs = torch.aminmax(image.reshape(image.shape[0], -1), dim=1)
    if not (torch.isfinite(lows).all() and torch.isfinite(highs).all()):
        number = int((~torch.isfinite(image)).sum())
        raise InputError(
            problem(
                f"image {name} holds {number} values that are NaN or infinite",
                "every value must be finite",
                "replace them, or make the file anew",
            )
        )
    flat = [channel for channel in range(len(lows)) if lows[channel] == highs[channel]]
    if flat:
        which = f" in channel {', '.join(map(str, flat))}" if len(lows) > 1 else ""
        raise InputError(
            problem(
                f"image {name} is {float(lows[flat[0]]):g} everywhere{which}",
                "a constant channel shows nothing",
                "check how the file was made",
            )
        )


def _check_same_grid(image: Any, label: Any, name: str, label_name: str) -> None:
    sizes = tuple(image.shape[1:]), tuple(label.shape[1:])
    if sizes[0] != sizes[1]:
        raise InputError(
            problem(
                f"image {name} has shape {sizes[0]} and its label {label_name} {sizes[1]}",
                "both must lie on one grid",
                "resample the label to the image, or correct the list",
            )
        )
    if not (isinstance(image, MetaTensor) and isinstance(label, MetaTensor)):
        return
    # In a pipeline that turns axes while loading, both turn alike, so corners are compared as they are now.
    first, second = image.affine.double(), label.affine.double()
    corners = (
        torch.cartesian_prod(*(torch.tensor([0.0, size - 1.0]) for size in image.shape[1:]), torch.ones(1)).double().T
    )
    apart = ((first - second) @ corners)[:3].norm(dim=0).max()
    edge = first[:3, :3].norm(dim=0).min()
    if not apart <= _CORNER_TOLERANCE * edge:
        raise InputError(
            problem(
                f"image {name} and its label {label_name} are placed {float(apart):.4g} apart (at a corner)",
                f"their affines must agree to {_CORNER_TOLERANCE:g} of a voxel edge ({float(edge):.4g})",
                "resample the label to the image, or copy the image's affine to it if only the header is wrong",
            )
        )
