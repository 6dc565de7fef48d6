"""The networks of the five methods and the blocks they share."""

from .blocks import DoubleConv, UpDoubleConv
from .cascade import CascadedUNet3D
from .residual import ResidualBlock
from .rois import RoIPrediction
from .ru_net import RUNet, RUNetEnsemble
from .unet3d import UNet3D

__all__ = [
    "CascadedUNet3D",
    "DoubleConv",
    "RoIPrediction",
    "RUNet",
    "RUNetEnsemble",
    "ResidualBlock",
    "UNet3D",
    "UpDoubleConv",
]
