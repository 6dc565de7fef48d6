"""A composite of two tiny networks, and its inferer: the smallest method with two stages."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.inferers import Inferer


class TwoStage(torch.nn.Module):
    """Channel-wise threshold finder and refiner, as children of one composite."""

    def __init__(self) -> None:
        super().__init__()
        self.finder = torch.nn.Sequential(
            torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 2, 1)
        )
        self.refiner = torch.nn.Sequential(
            torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 2, 1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.refiner(image)


class FindThenRefine(Inferer):
    """The refiner's answer, background where the finder finds nothing."""

    def __call__(self, inputs: torch.Tensor, network: TwoStage, *args, **kwargs) -> torch.Tensor:
        found = network.finder(inputs).argmax(1, keepdim=True)
        return network.refiner(inputs).argmax(1, keepdim=True) * found


class LabelsOfStage(Inferer):
    """Labels of one network."""

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module, *args, **kwargs) -> torch.Tensor:
        return network(inputs).argmax(1, keepdim=True)


def cases(folder: str) -> list[dict[str, str]]:
    """Image and label of every case in `folder`."""
    images = sorted(Path(folder).glob("image*.nii.gz"))
    return [{"image": str(path), "label": str(path.with_name(path.name.replace("image", "label")))} for path in images]
