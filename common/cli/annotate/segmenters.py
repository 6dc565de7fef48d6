"""What fills a volume up in a simulation of annotation: the bundle's network, or a rival that learns nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.annotation import Annotation
from ...data.volume_file import VolumeFile
from ...geometry.grids import first_argmax
from ...inferers.seeded import RandomWalkerInferer, ShapeInterpolationInferer
from ...transforms.uncertainty import Uncertainty
from ..densify.case import read_array, write_case
from ..densify.steps import densify_once

__all__ = ["RIVALS", "NetworkSegmenter", "RivalSegmenter"]

RIVALS = {"interpolation": ShapeInterpolationInferer, "random_walker": RandomWalkerInferer}


class RivalSegmenter:
    """A rival that fills a volume up from the drawn voxels, in this process.

    Args:
        name: a key of :data:`RIVALS`.
        volume: the image.
        classes: K.
    """

    def __init__(self, name: str, volume: VolumeFile, classes: int) -> None:
        self.inferer = RIVALS[name](classes, classes, output="probabilities", spacing=volume.spacing)
        channels = volume.array if volume.array.ndim == 4 else volume.array[..., None]
        self.image = torch.from_numpy(np.moveaxis(channels, -1, 0).astype(np.float32))[None]

    def __call__(self, drawn: np.ndarray, place: Path, before: Path | None) -> tuple[np.ndarray, np.ndarray]:
        """Label and uncertainty, X Y Z, from what is drawn; the folders are not used."""
        found = self.inferer(self.image, seeds=torch.from_numpy(drawn)[None, None])[0]
        label = first_argmax(found[None].split(1, dim=1), torch.uint8)[0, 0]
        return label.numpy(), Uncertainty()(found)[0].numpy()


class NetworkSegmenter:
    """The bundle's network, trained on what is drawn; a round goes on from the weights of the one before.

    Args:
        bundle: its folder.
        volume: the image.
        values: the label value of each class.
        names: of the classes.
        settings: config entries for training and prediction.
        overlays: more overlays of the bundle.
    """

    def __init__(
        self,
        bundle: Path,
        volume: VolumeFile,
        values: Sequence[int],
        names: Sequence[str],
        settings: Mapping[str, Any],
        overlays: Sequence[str] = (),
    ) -> None:
        self.bundle, self.volume, self.values, self.names = bundle, volume, tuple(values), list(names)
        self.settings, self.overlays = dict(settings), list(overlays)

    def __call__(self, drawn: np.ndarray, place: Path, before: Path | None) -> tuple[np.ndarray, np.ndarray]:
        """Label and uncertainty, X Y Z, from what is drawn; weights and log stay in the folder.

        Raises:
            LineError: when a line fails; its text names the log.
        """
        shutil.rmtree(place, ignore_errors=True)  # of a round that was stopped
        write_case(place / "case", self.volume, Annotation(drawn, self.values, [[], [], []]), self.names)
        weights = None if before is None else before / "model.pt"
        files = densify_once(
            self.bundle, place / "case", place / "out", self.settings, weights, place / "log.txt", self.overlays
        )
        label, uncertainty = (read_array(file) for file in files)
        for name in ("model.pt", "model.json"):
            os.replace(place / "out" / name, place / name)
        for part in ("case", "out"):  # volumes: of each round there would be some
            shutil.rmtree(place / part)
        return label.astype(np.uint8), uncertainty.astype(np.float32)
