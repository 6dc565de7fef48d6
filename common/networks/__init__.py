"""The networks of the five methods and the blocks they share."""

from .blocks import DoubleConv, UpDoubleConv
from .unet3d import UNet3D

__all__ = ["DoubleConv", "UNet3D", "UpDoubleConv"]
