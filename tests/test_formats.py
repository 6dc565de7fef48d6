"""The optional readers agree: NRRD and DICOM series come back voxel for voxel on the same grid."""

from __future__ import annotations

import numpy as np
import pytest
from monai.data import ITKReader, ITKWriter, NrrdReader, PydicomReader
from monai.transforms import LoadImage

AFFINE = np.array([[-0.8, 0, 0, 11], [0, -0.9, 0, 22], [0, 0, 2.5, -33], [0, 0, 0, 1]])
VOLUME = np.random.default_rng(0).integers(-1000, 1000, (13, 11, 7)).astype(np.int16)


@pytest.fixture(scope="module")
def itk():
    return pytest.importorskip("itk", reason="ITK is not installed: pip install 'volseg[itk]'")


def _check(read) -> None:
    assert np.array_equal(read.numpy(), VOLUME)
    np.testing.assert_allclose(read.affine.numpy(), AFFINE, atol=1e-6)


def _write(path) -> None:
    writer = ITKWriter(output_dtype=np.int16, affine_lps_to_ras=True)
    writer.set_data_array(VOLUME, channel_dim=None, squeeze_end_dims=False)
    writer.set_metadata({"affine": AFFINE, "original_affine": AFFINE}, resample=False)
    writer.write(str(path))


@pytest.fixture(scope="module")
def series(itk, tmp_path_factory):
    """A DICOM series of `VOLUME`, one file a slice."""
    folder = tmp_path_factory.mktemp("series")
    uid = "1.2.826.0.1.3680043.2.1125.1"
    for k in range(VOLUME.shape[2]):
        image = itk.GetImageFromArray(np.ascontiguousarray(VOLUME[:, :, k].T[None]))
        image.SetSpacing([0.8, 0.9, 2.5])
        image.SetOrigin([-11, -22, -33 + 2.5 * k])  # ITK's frame is LPS, the affine above is RAS
        tags = image.GetMetaDataDictionary()
        for tag, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.3.{k + 1}",
            "0008|0060": "CT",
            "0020|000d": uid,
            "0020|000e": f"{uid}.2",
            "0020|0013": str(k + 1),
        }.items():
            tags[tag] = value
        io = itk.GDCMImageIO.New()
        io.KeepOriginalUIDOn()
        itk.imwrite(image, str(folder / f"{k}.dcm"), imageio=io)
    return folder


@pytest.mark.parametrize("name", ["volume.nrrd", "volume.mha", "volume.nii.gz"])
def test_itk_round_trip(itk, tmp_path, name):
    _write(tmp_path / name)
    _check(LoadImage(reader=ITKReader(), image_only=True)(str(tmp_path / name)))


def test_pynrrd_reads_what_itk_wrote(itk, tmp_path):
    pytest.importorskip("nrrd", reason="pynrrd is not installed: pip install 'volseg[formats]'")
    _write(tmp_path / "volume.nrrd")
    _check(LoadImage(reader=NrrdReader(), image_only=True)(str(tmp_path / "volume.nrrd")))


def test_itk_reads_a_dicom_series(series):
    _check(LoadImage(reader=ITKReader(), image_only=True)(str(series)))


def test_pydicom_reads_a_dicom_series(series):
    pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'volseg[formats]'")
    _check(LoadImage(reader=PydicomReader(), image_only=True)(str(series)))
