"""Random patches around lesions and in the organ that holds them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Randomizable, Transform
from monai.utils import convert_to_tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..checks import InputError, problem
from ..geometry.sampling import ClassVoxels
from .source import check_one_grid, source_of
from .window import cut_window, voxel_counts

__all__ = ["RandLesionPatch", "RandLesionPatchd"]


class _Places(NamedTuple):
    """Where patches of a label may lie: voxels of the lesion, and of the organ within `region`."""

    lesion: ClassVoxels
    organ: ClassVoxels
    region: tuple[slice, ...]


class RandLesionPatch(Randomizable, Transform):
    """Draw patches that hold a voxel of a lesion, or are centred on one of the organ (jin2020raunet, section 2.4).

    The released code takes 300 patches of a volume whose centres are random tumour voxels, jittered by up to half a
    patch on each axis, and 50 centred on random liver voxels that are no tumour; windows that leave the volume are
    drawn again. Here a patch is of the first kind with the probability `lesion_share`.

    Reading: the drawn lesion voxel lies anywhere in the patch with the same probability, and never outside; it is the
    jitter that is drawn again where a window leaves the volume, so that lesions at its border are seen as often.

    Deviation: a case without lesion gives patches of the organ; the released code passes over such volumes. Where the
    volume is smaller than the patch, it lies in the patch's middle and zeros around it. Where no organ voxel can be a
    centre, the window is moved into the volume.

    A label is counted once, as long as the same tensor comes again, as it does from a cache.

    Args:
        patch_size: voxels, one number or one for each axis.
        lesion: label of the lesion.
        organ: label of the organ around it.
        lesion_share: share of the patches with a lesion's voxel, in cases that have one.

    Raises:
        InputError: for arguments out of range.
    """

    def __init__(
        self, patch_size: Sequence[int] | int, lesion: int = 2, organ: int = 1, lesion_share: float = 300 / 350
    ) -> None:
        self.patch_size = voxel_counts(patch_size, "patch_size", least=1)
        self.lesion, self.organ, self.lesion_share = int(lesion), int(organ), float(lesion_share)
        if not 0 <= self.lesion_share <= 1:
            came = f"lesion_share {lesion_share} was given"
            raise InputError(problem(came, "it must lie between 0 and 1", "take 0.857 (300 of 350)"))
        if self.lesion == self.organ:
            came = f"lesion {lesion} and organ {organ} was given"
            raise InputError(problem(came, "they must be two labels", "give for example 2 and 1"))
        self.start = (0, 0, 0)
        self._counted: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        # the counts belong to tensors of this process
        return {name: value for name, value in self.__dict__.items() if name != "_counted"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._counted = WeakTensorKeyDictionary()

    def randomize(self, label: NdarrayOrTensor) -> None:
        """Draw the first voxel of a patch for one label volume of shape (1, D, H, W).

        Raises:
            InputError: where the label has neither lesion nor organ.
        """
        places, labels = self._places(label), convert_to_tensor(label, track_meta=False)[0]
        if not places.lesion.total + places.organ.total:
            came = f"{source_of(label)} holds neither {self.lesion} (lesion) nor {self.organ} (organ)"
            raise InputError(
                problem(came, "patches are drawn around either", "correct the label, or take the case out of the list")
            )
        wanted = self.R.uniform() < self.lesion_share
        around_lesion = places.lesion.total > 0 and (wanted or not places.organ.total)
        extents = zip(labels.shape, self.patch_size, strict=True)
        if around_lesion:
            voxel = places.lesion.voxel(labels, self._rank(places.lesion))
            self.start = tuple(self._around(v, n, size) for v, (n, size) in zip(voxel, extents))
        else:
            inner = places.organ.voxel(labels[places.region], self._rank(places.organ))
            voxel = (v + part.start for v, part in zip(inner, places.region))
            self.start = tuple(_inside(v - size // 2, n, size) for v, (n, size) in zip(voxel, extents))

    def _rank(self, voxels: ClassVoxels) -> int:
        return int(self.R.randint(voxels.total, dtype=np.int64))

    def _around(self, voxel: int, extent: int, size: int) -> int:
        """First voxel of a window of one axis that holds `voxel` and lies in the volume, all with one probability."""
        if extent <= size:
            return _inside(0, extent, size)
        low, high = max(0, voxel - size + 1), min(voxel, extent - size)
        return int(self.R.randint(low, high + 1))

    def _places(self, label: NdarrayOrTensor) -> _Places:
        """Count, or look up what was counted while the tensor was as it is now."""
        if not isinstance(label, torch.Tensor) or label.is_inference():
            return self._count(label)
        version, places = self._counted.get(label, (None, None))
        if version != label._version:
            places = self._count(label)
            self._counted[label] = (label._version, places)
        return places

    def _count(self, label: NdarrayOrTensor) -> _Places:
        labels = convert_to_tensor(label, track_meta=False)[0]
        region = tuple(
            # centres of windows that lie in the volume
            slice(size // 2, n - size + size // 2 + 1) if n >= size else slice(0, n)
            for n, size in zip(labels.shape, self.patch_size, strict=True)
        )
        organ = ClassVoxels(labels[region], self.organ)
        if not organ.total:
            region = tuple(slice(0, n) for n in labels.shape)
            organ = ClassVoxels(labels, self.organ)
        return _Places(ClassVoxels(labels, self.lesion), organ, region)

    def __call__(
        self, img: NdarrayOrTensor, label: NdarrayOrTensor | None = None, randomize: bool = True
    ) -> NdarrayOrTensor:
        """Cut a patch out.

        Args:
            img: C D H W.
            label: 1 D H W on the image's grid, which says where the patch may be drawn; the image where none is given.
            randomize: draw a place; otherwise the one drawn last is taken.

        Returns:
            C and `patch_size`, of the same type and dtype, a copy. The affine of a `MetaTensor` follows; the record of
            operations applied before ends here.
        """
        if randomize:
            label = img if label is None else label
            check_one_grid({"image": torch.as_tensor(img), "label": torch.as_tensor(label)}, torch.as_tensor(label))
            self.randomize(label)
        return cut_window(img, self.start, self.patch_size)


class RandLesionPatchd(Randomizable, MapTransform):
    """Dictionary form of :class:`RandLesionPatch`: the same patch of all entries.

    Args:
        keys: images and labels on one grid.
        label_key: the label that says where patches are drawn.
        patch_size, lesion, organ, lesion_share: see :class:`RandLesionPatch`.
        allow_missing_keys: do not raise when an entry is missing (the label is always needed).
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        patch_size: Sequence[int] | int,
        lesion: int = 2,
        organ: int = 1,
        lesion_share: float = 300 / 350,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.label_key = label_key
        self.patcher = RandLesionPatch(patch_size, lesion, organ, lesion_share)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandLesionPatchd:
        """Seed this transform."""
        super().set_random_state(seed, state)
        self.patcher.set_random_state(seed, state)
        return self

    def randomize(self, data: Any) -> None:
        """Draw a patch of one label volume."""
        self.patcher.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cut the patch out of every entry."""
        result, label = dict(data), data[self.label_key]
        keys = list(self.key_iterator(result))
        check_one_grid({key: torch.as_tensor(data[key]) for key in (*keys, self.label_key)}, torch.as_tensor(label))
        self.randomize(label)
        for key in keys:
            result[key] = self.patcher(data[key], randomize=False)
        return result


def _inside(start: int, extent: int, size: int) -> int:
    """A window's first voxel of one axis, moved into the volume; the volume in its middle where it is the smaller."""
    return min(max(start, 0), extent - size) if extent >= size else -((size - extent) // 2)
