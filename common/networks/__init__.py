"""The networks of the five methods and the blocks they share."""

from .blocks import DoubleConv, UpDoubleConv
from .cascade import CascadedUNet3D
from .unet3d import UNet3D

__all__ = ["CascadedUNet3D", "DoubleConv", "UNet3D", "UpDoubleConv"]
