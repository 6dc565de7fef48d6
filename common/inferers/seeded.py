"""Rivals that learn nothing: they fill a volume up from the labels of some of its own voxels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.inferers import Inferer
from monai.utils import optional_import

from ..checks import InputError, problem
from ..geometry.grids import first_argmax
from ..geometry.labels import check_labels
from ..geometry.slice_interpolation import interpolate_slices

ndimage, _ = optional_import("scipy.ndimage")
random_walker, _ = optional_import("skimage.segmentation", name="random_walker")

__all__ = ["RandomWalkerInferer", "SeededInferer", "ShapeInterpolationInferer"]

_OUTPUTS = ("labels", "probabilities")
_MODES = ("cg_j", "cg", "cg_mg", "bf")
# the probabilities of a solved voxel add up to 1
_REACHED = 0.5


class SeededInferer(Inferer):
    """What filling a volume up from seeds has in common: shapes, the voxels that were drawn, metadata.

    Args:
        num_classes: K; classes are 0 .. K - 1.
        ignore_index: value of the seeds where nothing is labelled.
        output: ``"labels"`` or ``"probabilities"``.
        spacing: of the three axes, in any unit; None takes it from the inputs' affine, or 1 where there is none.

    Raises:
        InputError: an argument outside its range.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int,
        output: str = "labels",
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.ignore_index, self.output = int(num_classes), int(ignore_index), output
        self.spacing = None if spacing is None else tuple(float(step) for step in spacing)
        _require(2 <= self.num_classes <= 256, "num_classes", num_classes, "2 to 256")
        outside = not 0 <= self.ignore_index < self.num_classes
        _require(outside, "ignore_index", ignore_index, f"other than the classes 0 to {self.num_classes - 1}")
        _require(output in _OUTPUTS, "output", output, f"one of {', '.join(_OUTPUTS)}")
        fits = self.spacing is None or (len(self.spacing) == 3 and all(0 < step < np.inf for step in self.spacing))
        _require(fits, "spacing", spacing, "three lengths above 0, or None")

    @torch.no_grad()
    def __call__(
        self,
        inputs: torch.Tensor,
        network: Callable | None = None,
        *args: Any,
        seeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Fill a batch of volumes up.

        Args:
            inputs: the image, B C D H W; a MetaTensor keeps its metadata.
            network: not used; there is nothing to learn.
            args, kwargs: not used.
            seeds: labels B 1 D H W, `ignore_index` where nothing is labelled.

        Returns:
            labels B 1 D H W, uint8, or probabilities B K D H W, float32, on the inputs' device. Labelled voxels keep
            their label; a class that no seed has is nowhere.

        Raises:
            InputError: no seeds, or seeds of another shape, of labels that are no class, or without any label.
        """
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        given = seeds.as_tensor() if isinstance(seeds, MetaTensor) else seeds
        self._check(volume, given)
        spacings = self._spacings(inputs)
        filled = [
            self._filled(image, labels[0], spacing)
            for image, labels, spacing in zip(volume, given.to(volume.device), spacings, strict=True)
        ]
        result = torch.stack(filled)
        return MetaTensor(result).copy_meta_from(inputs, copy_attr=False) if isinstance(inputs, MetaTensor) else result

    @abstractmethod
    def probabilities(self, image: torch.Tensor, labels: torch.Tensor, spacing: tuple[float, ...]) -> torch.Tensor:
        """Probabilities K D H W, float32, of one image C D H W from its labels D H W (at least one is a class)."""

    def _filled(self, image: torch.Tensor, labels: torch.Tensor, spacing: tuple[float, ...]) -> torch.Tensor:
        """Labels 1 D H W or probabilities K D H W of one volume, those of the seeds as they were drawn."""
        drawn = labels != self.ignore_index
        scores = self.probabilities(image, labels, spacing)
        if self.output == "labels":
            best = first_argmax(scores[None].split(1, dim=1), torch.uint8)[0]
            return torch.where(drawn, labels.to(torch.uint8), best)
        classes = torch.arange(self.num_classes, device=labels.device).view(-1, 1, 1, 1)
        return torch.where(drawn, (labels == classes).to(scores.dtype), scores)

    def _check(self, volume: torch.Tensor, seeds: torch.Tensor | None) -> None:
        if seeds is None:
            raise InputError(
                problem(
                    f"{type(self).__name__} was called without seeds",
                    "it fills a volume up from the labels of some of its voxels",
                    "pass seeds=..., in a config by PrepareBatchExtraInput and seeds_key",
                )
            )
        wanted = (volume.shape[0], 1, *volume.shape[2:])
        if volume.ndim != 5 or tuple(seeds.shape) != wanted:
            raise InputError(
                problem(
                    f"seeds of {tuple(seeds.shape)} for inputs of {tuple(volume.shape)}",
                    "inputs are B C D H W and seeds B 1 D H W on the same grid",
                    "put the seeds on the inputs' grid",
                )
            )
        for labels in seeds:
            check_labels(labels, self.num_classes, self.ignore_index)
            if not bool((labels != self.ignore_index).any()):
                raise InputError(
                    problem(
                        "nothing is labelled in the seeds", "some voxels must be", "annotate a slice of this volume"
                    )
                )

    def _spacings(self, inputs: torch.Tensor) -> list[tuple[float, ...]]:
        """The spacing of each volume of the batch."""
        if self.spacing is not None or not isinstance(inputs, MetaTensor):
            return [self.spacing or (1.0, 1.0, 1.0)] * len(inputs)
        affines = inputs.affine if inputs.affine.ndim == 3 else inputs.affine.expand(len(inputs), -1, -1)
        return [tuple(float(step) for step in affine_to_spacing(affine.cpu(), 3)) for affine in affines]


class ShapeInterpolationInferer(SeededInferer):
    """Shape-based interpolation between annotated slices; the image is not looked at.

    raya1990interpolation, herman1992interpolation; how several axes are joined is told at
    :func:`~common.geometry.slice_interpolation.interpolate_slices`.

    Reading: probabilities are the softmax of the signed distances over the length s that is told there: certain on the
    annotated planes, and flatter away from them.

    Args:
        num_classes, ignore_index, output, spacing: see :class:`SeededInferer`.

    Raises:
        InputError: an argument outside its range.
    """

    def probabilities(self, image: torch.Tensor, labels: torch.Tensor, spacing: tuple[float, ...]) -> torch.Tensor:
        """See :class:`SeededInferer`; distances within planes are found on the host.

        Raises:
            InputError: where no plane is annotated.
        """
        distances, length = interpolate_slices(labels, self.num_classes, self.ignore_index, spacing)
        return torch.softmax(distances / length.clamp_min(1e-4 * min(spacing)), dim=0)


class RandomWalkerInferer(SeededInferer):
    """Random walks from every voxel: which class's seeds they meet first, when edges in the image slow them down.

    grady2006random, by ``skimage.segmentation.random_walker``: on the host, and for all classes that have seeds.

    Reading: each channel is scaled to its range first, and the spacing to its smallest step, since scikit-image divides
    grey value differences by the spacing and their squares by ten times the image's standard deviation, so that `beta`
    would mean another thing for another unit. A voxel that hardly any walk reaches, behind edges so strong that the
    solver leaves its probabilities near 0, takes the class of the nearest seed.

    Args:
        num_classes, ignore_index, output, spacing: see :class:`SeededInferer`.
        beta: how much edges count, above 0; scikit-image's default of 130.
        tolerance: of the conjugate gradients.
        mode: solver of scikit-image: ``"cg_j"``, conjugate gradients with Jacobi's preconditioner, suits volumes;
            ``"cg"``, ``"cg_mg"`` (needs pyamg), ``"bf"`` (direct, for small volumes).
        max_voxels: a larger volume is refused: about 1 KB of memory is taken for each voxel.

    Raises:
        InputError: an argument outside its range.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int,
        output: str = "labels",
        spacing: Sequence[float] | None = None,
        beta: float = 130.0,
        tolerance: float = 1e-3,
        mode: str = "cg_j",
        max_voxels: int = 8_000_000,
    ) -> None:
        super().__init__(num_classes, ignore_index, output, spacing)
        self.beta, self.tolerance, self.mode, self.max_voxels = float(beta), float(tolerance), mode, int(max_voxels)
        _require(0 < self.beta < np.inf, "beta", beta, "a number above 0")
        _require(0 < self.tolerance < 1, "tolerance", tolerance, "between 0 and 1")
        _require(mode in _MODES, "mode", mode, f"one of {', '.join(_MODES)}")
        _require(self.max_voxels > 0, "max_voxels", max_voxels, "at least 1")

    def probabilities(self, image: torch.Tensor, labels: torch.Tensor, spacing: tuple[float, ...]) -> torch.Tensor:
        """See :class:`SeededInferer`.

        Raises:
            InputError: where the volume is too large.
        """
        if labels.numel() > self.max_voxels:
            raise InputError(
                problem(
                    f"a volume of {tuple(labels.shape)} came, {labels.numel()} voxels",
                    f"the random walker takes {self.max_voxels} at most (max_voxels), since each takes about 1 KB of "
                    "memory",
                    "down-sample or crop the volume, raise max_voxels where there is memory, or leave this rival out",
                )
            )
        seeds = labels.cpu().numpy()
        classes = [int(value) for value in np.unique(seeds) if value != self.ignore_index]
        scores = np.zeros((self.num_classes, *seeds.shape), dtype=np.float32)
        if len(classes) == 1 or (seeds != self.ignore_index).all():
            # nothing to decide, which scikit-image answers in other shapes
            scores[classes] = 1.0 if len(classes) == 1 else [seeds == index for index in classes]
        else:
            scores[classes] = self._walked(image, seeds, classes, spacing)
        return torch.from_numpy(scores).to(labels.device)

    def _walked(
        self, image: torch.Tensor, seeds: np.ndarray, classes: Sequence[int], spacing: tuple[float, ...]
    ) -> np.ndarray:
        """Probabilities of the classes that have seeds, in their order."""
        data = image.double().cpu().numpy()
        low = data.min(axis=(1, 2, 3), keepdims=True)
        spread = data.max(axis=(1, 2, 3), keepdims=True) - low
        data = (data - low) / np.where(spread > 0, spread, 1.0)
        beta = self.beta
        if not data.any():
            # scikit-image divides by the standard deviation of an image without edges
            data[:, :1, :1, :1], beta = 1.0, 0.0
        markers = np.zeros(seeds.shape, dtype=np.int32)
        for marker, index in enumerate(classes, start=1):
            markers[seeds == index] = marker
        steps = np.asarray(spacing) / min(spacing)
        found = random_walker(
            data,
            markers,
            beta=beta,
            mode=self.mode,
            tol=self.tolerance,
            prob_tol=0.1,  # clipped below, so a small excess needs no warning
            return_full_prob=True,
            spacing=steps,
            channel_axis=0,
        )
        found = np.clip(found, 0.0, 1.0)
        total = found.sum(axis=0)
        missed = total < _REACHED
        if missed.any():
            nearest = ndimage.distance_transform_edt(markers == 0, spacing, return_distances=False, return_indices=True)
            of_nearest = markers[tuple(nearest)][missed]
            found[:, missed] = of_nearest == np.arange(1, len(classes) + 1)[:, None]
            total[missed] = 1.0
        return found / total


def _require(holds: bool, name: str, value: Any, rule: str) -> None:
    """Raise for an argument that breaks its rule."""
    if not holds:
        raise InputError(problem(f"{name}={value!r}", f"{name} must be {rule}", f"change {name}"))
