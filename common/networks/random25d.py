"""2.5D U-Nets: projections of the whole volume, one 2D U-Net for all of them, and a learnable reconstruction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..checks import InputError, nearest, parse_flag, problem
from ..geometry.projection import check_angles, detector_width, direction_angles, project
from .reconstruction import Reconstruction
from .residual import recomputed
from .unet import UNet2D

__all__ = ["ProjectionUNet", "RandomProjectionUNet"]

PROJECTIONS = ("max", "sum")
DETECTORS = ("cropped", "full")
NORMS = ("instance", "group", None)


class ProjectionNetwork(nn.Module):
    """What the two 2.5D networks share: projections, and the 2D U-Net applied to some of them at a time."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        directions: int,
        projection: str,
        detector: str,
        widths: Sequence[int],
        norm: str | None,
        directions_at_once: int,
        save_memory: bool,
    ) -> None:
        super().__init__()
        _check_choice("projection", projection, PROJECTIONS)
        _check_choice("detector", detector, DETECTORS)
        check_norm(norm)
        self.in_channels = int(in_channels)
        self.angles: list[float] = direction_angles(int(directions))
        self.projection, self.detector = projection, detector
        self.directions_at_once = check_count("directions_at_once", directions_at_once)
        self.save_memory = parse_flag(save_memory, "save_memory")
        self.unet = UNet2D(in_channels, out_channels, widths, norm)

    def _projected(
        self,
        image: torch.Tensor,
        projections: torch.Tensor | None,
    ) -> torch.Tensor:
        """Projections from the fixed directions, unless they came."""
        if projections is None:
            return project(image, self.angles, self.projection, self.detector)
        return projections

    def _masks(self, projections: torch.Tensor, size_a: int) -> torch.Tensor:
        """U with its sigmoid: masks B D K b W of projections B D C b W of volumes with `size_a` voxels along a."""
        images = projections.flatten(0, 1)
        if self.projection == "sum":
            images = images / size_a  # sums of a hundred voxels would drive every sigmoid to its end from the start
        masks: list[torch.Tensor] = []
        for start in range(0, images.shape[0], self.directions_at_once):
            some = images[start : start + self.directions_at_once]
            if torch.jit.is_scripting():
                masks.append(self._mask(some))
            else:
                saving = self.save_memory and torch.is_grad_enabled()
                masks.append(recomputed(self._mask, some) if saving else self._mask(some))
        return torch.cat(masks).unflatten(0, projections.shape[:2])

    def _mask(self, images: torch.Tensor) -> torch.Tensor:
        return self.unet(images).sigmoid()

    def output_size(self, input_size: Sequence[int]) -> tuple[int, ...]:
        """Size of the result for a volume of `input_size` voxels (A, b, C): the same.

        Raises:
            InputError: if the network cannot take that size.
        """
        size = tuple(int(n) for n in input_size)
        if len(size) != 3:
            came = f"size {size} has {len(size)} axes"
            raise InputError(problem(came, "it must be (A, b, C)", "leave out batch and channels"))
        width = detector_width(size[0], size[2], self.detector)
        if width < self.filter_size:
            came = f"the volume of {_times(size)} voxels has {width} detector bins"
            rule = f"the filter of {self.filter_size} taps must not be larger"
            raise InputError(problem(came, rule, f"use filter_size={width} or less, or larger volumes"))
        self.unet.output_size((size[1], width))
        return size

    def _checked_image(self, image: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return image  # sizes are symbols there, and an exported graph cannot raise
        if image.ndim != 5 or image.shape[1] != self.in_channels:
            came = f"the network got a tensor of shape {tuple(image.shape)}"
            rule = f"it takes (batch, {self.in_channels}, A, b, C)"
            raise InputError(problem(came, rule, "give the image that many channels or set in_channels"))
        self.output_size(image.shape[2:])
        return image.as_subclass(torch.Tensor)

    def _checked_projections(
        self,
        image: torch.Tensor,
        projections: torch.Tensor | None,
    ) -> torch.Tensor | None:
        if projections is None or torch.jit.is_tracing() or torch.compiler.is_compiling():
            return projections
        batch, channels, size_a, length, size_c = image.shape
        width = detector_width(size_a, size_c, self.detector)
        expected = (batch, len(self.angles), channels, length, width)
        if tuple(projections.shape) != expected:
            came = f"projections of shape {tuple(projections.shape)} came with an image of {tuple(image.shape)}"
            remedy = "project with the network's directions and detector, or give none"
            raise InputError(problem(came, f"they must be {expected} (batch, directions, channels, b, W)", remedy))
        return projections.as_subclass(torch.Tensor)


class ProjectionUNet(ProjectionNetwork):
    """Projection-based 2.5D U-Net with fixed, equidistant directions (angermann2019projection25d).

    N = T R F U M: maximum intensity projections M from m directions, one 2D U-Net U with a sigmoid for all of them, a
    filter F for each direction, linear back-projection R and a normalised consensus T (of which the last sigmoid is the
    caller's). All parts learn.

    Reading: normalisations of U that mix the images of a batch are refused, for how many of them it sees at a time is
    a matter of memory (`directions_at_once`). Sums reach U divided by A, which leaves them on the scale of the volume.

    Args:
        in_channels: channels of the image.
        out_channels: foreground classes K.
        directions: m, at k * 180 / m degrees.
        projection: ``"max"`` or ``"sum"``.
        detector: ``"cropped"``, as wide as axis c (paper), or ``"full"``, which no corner of the volume leaves.
        widths: of :class:`~common.networks.unet.UNet2D`.
        norm: of U: ``"instance"``, ``"group"`` or None (paper).
        filter_size: taps of a filter; 0 leaves F out.
        filter_init: ``"mean"`` or ``"ramp"``, see :class:`~common.networks.reconstruction.Filtration`.
        normalise: ``"affine"`` or ``"batch"``, see :class:`~common.networks.reconstruction.Consensus`.
        directions_at_once: projections that pass U together.
        save_memory: True keeps no features of U for the backward pass but computes them again, for
            `directions_at_once` projections at a time; same result.

    Raises:
        InputError: for other arguments, and for volumes whose detector is narrower than the filter.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        directions: int = 12,
        projection: str = "max",
        detector: str = "cropped",
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        norm: str | None = None,
        filter_size: int = 2,
        filter_init: str = "mean",
        normalise: str = "affine",
        directions_at_once: int = 4,
        save_memory: bool = False,
    ) -> None:
        directions = check_count("directions", directions)
        super().__init__(
            in_channels, out_channels, directions, projection, detector, widths, norm, directions_at_once, save_memory
        )
        self.reconstruction = Reconstruction(directions, int(out_channels), filter_size, filter_init, normalise)
        self.filter_size = int(filter_size)

    def forward(
        self,
        image: torch.Tensor,
        projections: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits.

        Args:
            image: B in_channels A b C.
            projections: of the image from the m directions, B m in_channels b W, if they are at hand.

        Returns:
            B out_channels A b C.
        """
        if not torch.jit.is_scripting():
            image = self._checked_image(image)
            projections = self._checked_projections(image, projections)
        masks = self._masks(self._projected(image, projections), image.shape[2])
        return self.reconstruction(masks, self.angles, image.shape[2], image.shape[4])


class RandomProjectionUNet(ProjectionNetwork):
    """Random 2.5D U-Net (angermann2019random25d): p random directions train the 2D U-Net, m fixed ones give the answer.

    Path 1, y_aux = T R F U M of one random direction in each of p sectors, trains U, F and T; F belongs to the sector,
    whatever the angle. Path 2, y = T~ R F~ U M of all m directions, has U applied only: no features are kept, and the
    loss of y reaches F~ and T~ alone. Path 2 is the network's answer; path 1 exists in training only.

    Reading: the sectors are [k * 180 / p, (k + 1) * 180 / p); as printed they overlap and end at 25 degrees for p = 12.
    Normalisations of U that mix the images of a batch are refused and sums divided, as by :class:`ProjectionUNet`.

    Args:
        in_channels: channels of the image.
        out_channels: foreground classes K.
        sectors: p.
        directions: m, at k * 180 / m degrees; a multiple of p.
        projection: ``"max"`` or ``"sum"``.
        detector: ``"cropped"``, as wide as axis c (paper), or ``"full"``, which no corner of the volume leaves.
        widths: of :class:`~common.networks.unet.UNet2D`.
        norm: of U: ``"instance"``, ``"group"`` or None (paper).
        filter_size: taps of a filter; 0 leaves F and F~ out.
        filter_init: ``"mean"`` or ``"ramp"``, see :class:`~common.networks.reconstruction.Filtration`.
        normalise: ``"affine"`` or ``"batch"``, see :class:`~common.networks.reconstruction.Consensus`.
        directions_at_once: projections that pass U together.
        save_memory: True keeps no features of U for the backward pass but computes them again, for
            `directions_at_once` projections at a time; same result.

    Raises:
        InputError: for other arguments, and for volumes whose detector is narrower than the filter.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        sectors: int = 12,
        directions: int = 60,
        projection: str = "max",
        detector: str = "cropped",
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        norm: str | None = None,
        filter_size: int = 2,
        filter_init: str = "mean",
        normalise: str = "affine",
        directions_at_once: int = 4,
        save_memory: bool = False,
    ) -> None:
        sectors, directions = check_count("sectors", sectors), check_count("directions", directions)
        if directions % sectors:
            came = f"directions is {directions} and sectors is {sectors}"
            remedy = f"use directions={-(-directions // sectors) * sectors}"
            raise InputError(problem(came, "there must be equally many directions in every sector", remedy))
        super().__init__(
            in_channels, out_channels, directions, projection, detector, widths, norm, directions_at_once, save_memory
        )
        self.auxiliary = Reconstruction(sectors, int(out_channels), filter_size, filter_init, normalise)
        self.reconstruction = Reconstruction(directions, int(out_channels), filter_size, filter_init, normalise)
        self.sectors, self.filter_size = sectors, int(filter_size)

    def forward(
        self,
        image: torch.Tensor,
        projections: torch.Tensor | None = None,
        angles: list[float] | None = None,
    ) -> torch.Tensor:
        """Logits of path 2, and of path 1 where its angles come.

        Args:
            image: B in_channels A b C.
            projections: of the image from the m directions, B m in_channels b W, if they are at hand.
            angles: of path 1, degrees, one in each sector and in their order.

        Returns:
            B out_channels A b C; with `angles` B 2*out_channels A b C, y before y_aux.
        """
        if not torch.jit.is_scripting():
            image = self._checked_image(image)
            projections = self._checked_projections(image, projections)
        with torch.no_grad():
            masks = self._masks(self._projected(image, projections), image.shape[2])
        logits = self.reconstruction(masks, self.angles, image.shape[2], image.shape[4])
        if angles is None:
            return logits
        if not torch.jit.is_scripting():
            self._check_angles(angles)
            if not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
                # Autocast keeps the weights that it cast for path 2; those of torch 2.8 and 2.9 have no gradients, and
                # with them path 1 would train nothing of U.
                torch.clear_autocast_cache()
        masks = self._masks(project(image, angles, self.projection, self.detector), image.shape[2])
        return torch.cat([logits, self.auxiliary(masks, angles, image.shape[2], image.shape[4])], 1)

    def _check_angles(self, angles: Sequence[float]) -> None:
        if len(angles) != self.sectors:
            came = f"{len(angles)} angles came for {self.sectors} sectors"
            raise InputError(problem(came, "path 1 takes one angle in each sector", "draw them with sector_angles"))
        check_angles(angles, self.sectors)


def check_count(name: str, value: int) -> int:
    """A whole number, 1 or more.

    Raises:
        InputError: for anything else.
    """
    if not isinstance(value, int | float) or int(value) != value or value < 1:
        raise InputError(problem(f"{name} is {value!r}", "it must be a whole number, 1 or more", f"set {name}"))
    return int(value)


def check_norm(norm: str | None) -> None:
    """Refuse a normalisation of a 2D network whose result depends on the other images of its batch.

    Raises:
        InputError: for those and for unknown ones.
    """
    if norm not in NORMS:
        rule = "images pass the 2D network some at a time, so it must be one of instance, group, None"
        raise InputError(problem(f"norm is {norm!r}", rule, "use norm='instance'"))


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        guess = nearest(str(value), known) or known[0]
        raise InputError(problem(f"{name} is {value!r}", f"it must be one of {', '.join(known)}", f"use {guess!r}"))


def _times(size: Sequence[int]) -> str:
    return "x".join(str(n) for n in size)
