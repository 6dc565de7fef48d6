"""Randomly placed, rotated, scaled and elastically deformed patches, drawn where something is labelled."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, Randomizable
from monai.transforms.traits import MultiSampleTrait
from monai.transforms.transform import Transform
from monai.utils import convert_to_tensor, ensure_tuple, ensure_tuple_rep

from ..checks import InputError, problem
from ..geometry.bspline import bspline_basis, control_positions, control_shape, evaluate_bspline
from ..geometry.sampling import LabelledVoxels, crop_patch, sample_positions
from .source import check_one_grid, moved, source_of

__all__ = ["RandDeformedPatch", "RandDeformedPatchd"]


class _Draw(NamedTuple):
    """The random numbers of one patch: drawn voxel, linear map of patch to volume offsets, displacements (voxels)."""

    centre: tuple[int, int, int]
    matrix: np.ndarray
    displacements: np.ndarray


class RandDeformedPatch(Randomizable, Transform, MultiSampleTrait):
    """Draw patches centred on labelled voxels, rotated, scaled and deformed by a B-spline, from image and label alike.

    cicek2016unet3d section 3 "Training"; roth2017hierarchical section 2. Only the patch's own positions are computed,
    once for image and label: the rotation and scaling are put into the control points of the B-spline, which
    reproduces linear maps exactly. The image is interpolated linearly, the label takes the nearest voxel. The drawn
    voxel is always at index size // 2 of the image patch and of the label patch.

    Reading: the control points themselves are drawn (the field's standard deviation is then about 0.34 sigma), the
    displacement comes before the rotation, and the rotation is rigid in millimetres (voxel sizes from the label's
    affine; in voxels without one), as in the authors' released layers. The papers give no range for the scaling:
    one factor for all axes, above 1 magnifies.
    Deviation: the displacement of the drawn voxel is subtracted from the field, so that a patch never loses it.

    Args:
        patch_size: voxels of the image patch per axis; may exceed the volume.
        label_size: voxels of the label patch, centred in the image patch (a network without padding answers for fewer
            voxels than it reads); None is `patch_size`.
        rotation_degrees: angles are uniform within plus and minus this, one value or one per axis.
        scale_range: lowest and highest scale factor.
        grid_spacing: voxels between control points, one value or one per axis.
        sigma: standard deviation of the control points' displacements, in voxels.
        ignore_index: label of what is not labelled; also the label outside the volume.
        outside: image outside the volume: "mirror" (3D U-Net) or "zero" (cascade).
        num_samples: patches per volume.
        foreground_share: share of the patches centred on a labelled voxel that is not `background_index`
            (where there is one); 0 draws uniformly over all labelled voxels, as the papers do.
        background_index: label of the background, for `foreground_share`.

    Returns:
        a list of `num_samples` patches. Images come as float32; labels keep their type. The affine of a `MetaTensor`
        follows placement, rotation and scaling (not the elastic part); the patch can not be inverted, and carries no
        record of operations applied before.

    Raises:
        InputError: for arguments out of range, a volume that is not (C, D, H, W), image and label of different size,
            or a label without any labelled voxel.
    """

    def __init__(
        self,
        patch_size: Sequence[int] | int,
        label_size: Sequence[int] | int | None = None,
        rotation_degrees: Sequence[float] | float = 15.0,
        scale_range: Sequence[float] = (0.9, 1.1),
        grid_spacing: Sequence[float] | float = 32,
        sigma: float = 4.0,
        ignore_index: int = 3,
        outside: str = "mirror",
        num_samples: int = 1,
        foreground_share: float = 0.0,
        background_index: int = 0,
    ) -> None:
        self.patch_size = tuple(int(v) for v in ensure_tuple_rep(patch_size, 3))
        label_size = self.patch_size if label_size is None else label_size
        self.label_size = tuple(int(v) for v in ensure_tuple_rep(label_size, 3))
        self.rotation_degrees = np.array(ensure_tuple_rep(rotation_degrees, 3), dtype=float)
        self.scale_range = tuple(float(v) for v in scale_range)
        self.grid_spacing = tuple(float(v) for v in ensure_tuple_rep(grid_spacing, 3))
        self.sigma = float(sigma)
        self.ignore_index = int(ignore_index)
        self.outside = outside
        self.num_samples = int(num_samples)
        self.foreground_share = float(foreground_share)
        self.background_index = int(background_index)
        self._check()
        self.control_shape = control_shape(self.patch_size, self.grid_spacing)
        self.draws: list[_Draw] = []

    def _check(self) -> None:
        rules = (
            (
                all(1 <= b <= a for a, b in zip(self.patch_size, self.label_size, strict=True)),
                f"label_size {self.label_size}",
                f"it must lie between 1 and patch_size {self.patch_size}",
            ),
            (
                len(self.scale_range) == 2 and 0 < self.scale_range[0] <= self.scale_range[1],
                f"scale_range {self.scale_range}",
                "it must be two factors above 0, the lower one first",
            ),
            (self.sigma >= 0, f"sigma {self.sigma}", "it must not be negative"),
            (self.outside in ("mirror", "zero"), f"outside {self.outside!r}", "it must be 'mirror' or 'zero'"),
            (self.num_samples >= 1, f"num_samples {self.num_samples}", "it must be at least 1"),
            (
                0 <= self.foreground_share <= 1,
                f"foreground_share {self.foreground_share}",
                "it must lie between 0 and 1",
            ),
        )
        for holds, came, rule in rules:
            if not holds:
                raise InputError(problem(f"{came} was given", rule, f"change {came.split()[0]}"))

    @property
    def plain(self) -> bool:
        """Whether all deformation is turned off, so that a patch is an exact copy."""
        return self.sigma == 0 and self.scale_range == (1.0, 1.0) and not self.rotation_degrees.any()

    def randomize(self, label: torch.Tensor) -> None:
        """Draw `num_samples` patches for one label volume of shape (1, D, H, W)."""
        voxel_size = np.ones(3)
        if isinstance(label, MetaTensor):
            voxel_size = np.linalg.norm(label.affine[:3, :3].cpu().numpy(), axis=0)
        labels = convert_to_tensor(label, track_meta=False)[0]
        groups = [LabelledVoxels(labels, (self.ignore_index,))]
        if self.foreground_share:
            groups.append(LabelledVoxels(labels, (self.ignore_index, self.background_index)))
        if not groups[0].total:
            raise InputError(
                problem(
                    f"nothing is labelled in {source_of(label)}",
                    f"patches are drawn where the label is not {self.ignore_index} (ignore_index)",
                    "label some of it, or take the case out of the training list",
                )
            )
        self.draws = []
        for _ in range(self.num_samples):
            wanted = groups[0]
            if self.foreground_share and self.R.uniform() < self.foreground_share and groups[1].total:
                wanted = groups[1]
            centre = wanted.voxel(int(self.R.randint(wanted.total, dtype=np.int64)))
            angles = self.R.uniform(-1.0, 1.0, 3) * np.deg2rad(self.rotation_degrees)
            matrix = _rotation(angles) * voxel_size / voxel_size[:, None] / self.R.uniform(*self.scale_range)
            self.draws.append(_Draw(centre, matrix, self.R.normal(0.0, 1.0, (3, *self.control_shape)) * self.sigma))

    def field(self, draw: _Draw, device: torch.device | str = "cpu") -> torch.Tensor:
        """Where the patch's voxels lie in the volume, in voxels from the drawn one: float32, (3, *patch_size)."""
        anchor = [size // 2 for size in self.patch_size]
        bases = [bspline_basis(size, step) for size, step in zip(self.patch_size, self.grid_spacing, strict=True)]
        grid = zip(self.control_shape, self.grid_spacing, anchor, strict=True)
        axes = [control_positions(count, step) - origin for count, step, origin in grid]
        controls = torch.stack(torch.meshgrid(*axes, indexing="ij")) + torch.from_numpy(draw.displacements)
        controls = torch.einsum("ij,jxyz->ixyz", torch.from_numpy(draw.matrix), controls)
        controls -= evaluate_bspline(controls, [basis[a : a + 1] for basis, a in zip(bases, anchor, strict=True)])
        return evaluate_bspline(controls.to(device=device, dtype=torch.float32), bases)

    def sample(self, volume: torch.Tensor, draw: _Draw, field: torch.Tensor | None, as_label: bool) -> torch.Tensor:
        """Read one patch out of one volume (C, D, H, W), at the positions `field` gives (None: a plain copy)."""
        size = self.label_size if as_label else self.patch_size
        fill = float(self.ignore_index) if as_label else (None if self.outside == "mirror" else 0.0)
        data = convert_to_tensor(volume, track_meta=False)
        if field is None:
            patch = crop_patch(data, [c - s // 2 for c, s in zip(draw.centre, size, strict=True)], size, fill)
            patch = patch if as_label else patch.to(torch.float32)
        else:
            starts = [p // 2 - s // 2 for p, s in zip(self.patch_size, size, strict=True)]
            window = field[(slice(None), *(slice(a, a + s) for a, s in zip(starts, size, strict=True)))].to(data.device)
            patch = sample_positions(data, window, draw.centre, fill, nearest=as_label)
        if not isinstance(volume, MetaTensor):
            return patch
        place = np.eye(4)
        place[:3, :3] = draw.matrix
        place[:3, 3] = draw.centre - draw.matrix @ [s // 2 for s in size]
        return moved(patch, volume, place)

    def patches(self, volumes: Mapping[Hashable, torch.Tensor], labels: Sequence[Hashable]) -> Iterator[dict]:
        """Each drawn patch of all `volumes`, those named in `labels` as labels; positions are computed once a patch."""
        for draw in self.draws:
            device = next(iter(volumes.values())).device
            field = None if self.plain else self.field(draw, device)
            yield {key: self.sample(volume, draw, field, key in labels) for key, volume in volumes.items()}

    def __call__(
        self, img: torch.Tensor, label: torch.Tensor | None = None, randomize: bool = True, as_label: bool = False
    ) -> list[torch.Tensor]:
        """Patches of `img` (C, D, H, W); `label` (1, D, H, W) says where they may be drawn and is needed to randomize.

        Call it again with ``randomize=False, as_label=True`` and the label for the label's patches.
        """
        volume = convert_to_tensor(img, track_meta=get_track_meta())
        if randomize:
            label = convert_to_tensor(volume if label is None else label, track_meta=get_track_meta())
            check_one_grid({"image": volume, "label": label}, label)
            self.randomize(label)
        return [patch["img"] for patch in self.patches({"img": volume}, ("img",) if as_label else ())]


class RandDeformedPatchd(Randomizable, MapTransform, MultiSampleTrait):
    """Dictionary form of :class:`RandDeformedPatch`: returns a list of `num_samples` dictionaries.

    cicek2016unet3d section 3; roth2017hierarchical section 2.

    Args:
        keys: images and labels, all of one size, shape (C, D, H, W) each.
        label_keys: those of `keys` that are labels; the first one says where patches are drawn.
        patch_size, label_size, rotation_degrees, scale_range, grid_spacing, sigma, ignore_index, outside, num_samples,
            foreground_share, background_index: see :class:`RandDeformedPatch`.
        allow_missing_keys: pass over keys that a case does not have (the first label key is always needed).

    Raises:
        InputError: see :class:`RandDeformedPatch`; also when `label_keys` names what `keys` does not.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: KeysCollection,
        patch_size: Sequence[int] | int,
        label_size: Sequence[int] | int | None = None,
        rotation_degrees: Sequence[float] | float = 15.0,
        scale_range: Sequence[float] = (0.9, 1.1),
        grid_spacing: Sequence[float] | float = 32,
        sigma: float = 4.0,
        ignore_index: int = 3,
        outside: str = "mirror",
        num_samples: int = 1,
        foreground_share: float = 0.0,
        background_index: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.label_keys = ensure_tuple(label_keys)
        if not self.label_keys or not set(self.label_keys) <= set(self.keys):
            raise InputError(
                problem(
                    f"label_keys {self.label_keys} was given with keys {self.keys}",
                    "at least one label is needed, and every label must be among the keys",
                    "name it in both",
                )
            )
        self.patcher = RandDeformedPatch(
            patch_size,
            label_size,
            rotation_degrees,
            scale_range,
            grid_spacing,
            sigma,
            ignore_index,
            outside,
            num_samples,
            foreground_share,
            background_index,
        )

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandDeformedPatchd:
        """Seed this transform."""
        super().set_random_state(seed, state)
        self.patcher.set_random_state(seed, state)
        return self

    def randomize(self, data: Any | None = None) -> None:
        """Draw the patches of one label volume."""
        self.patcher.randomize(data)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> list[dict[Hashable, Any]]:
        """Cut the drawn patches out of every key; what is not among the keys is copied to each."""
        track = get_track_meta()
        volumes = {key: convert_to_tensor(data[key], track_meta=track) for key in self.key_iterator(dict(data))}
        label = convert_to_tensor(data[self.label_keys[0]], track_meta=track)
        check_one_grid(volumes, label)
        self.randomize(label)
        others = {key: value for key, value in data.items() if key not in volumes}
        return [
            {key: patch[key] if key in patch else deepcopy(others[key]) for key in data}
            for patch in self.patcher.patches(volumes, self.label_keys)
        ]


def _rotation(angles: Sequence[float]) -> np.ndarray:
    """Rotation about the three array axes in turn, angles in radians."""
    turned = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[first, first] = step[second, second] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        turned = turned @ step
    return turned
