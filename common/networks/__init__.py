"""The networks of the five methods and the blocks they share."""

from .blocks import DoubleConv, UpDoubleConv
from .cascade import CascadedUNet3D
from .liver_tumour import LiverTumourRAUNet
from .planar import PlanarUNet
from .ra_unet import RAUNet
from .random25d import ProjectionUNet, RandomProjectionUNet
from .residual import ResidualBlock
from .rivals import IntensityThreshold, SliceUNet
from .rois import RoIPrediction
from .ru_net import RUNet, RUNetEnsemble
from .unet import UNet, UNet2D
from .unet3d import UNet3D

__all__ = [
    "CascadedUNet3D",
    "DoubleConv",
    "IntensityThreshold",
    "LiverTumourRAUNet",
    "PlanarUNet",
    "ProjectionUNet",
    "RAUNet",
    "RandomProjectionUNet",
    "RoIPrediction",
    "RUNet",
    "RUNetEnsemble",
    "ResidualBlock",
    "SliceUNet",
    "UNet",
    "UNet2D",
    "UNet3D",
    "UpDoubleConv",
]
