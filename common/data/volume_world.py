"""NRRD and MetaImage files: volumes whose affine is ITK's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from monai.data import ITKWriter
from monai.utils import optional_import

from ..checks import InputError, problem

_, _has_itk = optional_import("itk")
nrrd, _has_nrrd = optional_import("nrrd")

__all__ = ["WORLD_SUFFIXES", "write_world"]

# what is read: what is written for it, in one file
WORLD_SUFFIXES = {".nrrd": ".nrrd", ".nhdr": ".nrrd", ".mha": ".mha", ".mhd": ".mha"}


def write_world(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write X Y Z with its affine as NRRD or MetaImage.

    Args:
        path: the file, ``.nrrd`` or ``.mha``.
        array: X Y Z.
        affine: 4x4, voxels to RAS, mm.

    Raises:
        InputError: when no writer is installed.
    """
    if path.suffix.lower() == ".nrrd" and _has_nrrd:
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        header = {
            "space": "left-posterior-superior",
            "space directions": lps[:3, :3].T,
            "space origin": lps[:3, 3],
            "kinds": ["domain"] * 3,
            "encoding": "gzip",
        }
        nrrd.write(str(path), np.asfortranarray(array), header, index_order="F")
        return
    if not _has_itk:
        raise InputError(
            problem(
                f"'{path.suffix}' files can not be written here",
                "ITK writes them",
                "run pip install 'volseg[itk]', or save the image as NIfTI",
            )
        )
    writer = ITKWriter(output_dtype=array.dtype, affine_lps_to_ras=True)
    writer.set_data_array(array, channel_dim=None, squeeze_end_dims=False)
    writer.set_metadata({"affine": affine, "original_affine": affine}, resample=False)
    writer.write(str(path))
