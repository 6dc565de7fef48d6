"""Volumes come back voxel for voxel, and answers are written beside them on their grid."""

from __future__ import annotations

import json

import h5py
import nibabel
import numpy as np
import pytest
from monai.data import ITKWriter

from common.checks import InputError
from common.data.volume_file import parse_spacing, read_volume, write_like

tifffile = pytest.importorskip("tifffile")

SHAPE = (5, 6, 7)
VOLUME = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.uint8)
LABEL = (VOLUME > 100).astype(np.uint8)
AFFINE = np.array([[-0.8, 0, 0.1, 11], [0, -0.9, 0, 22], [0.2, 0, 2.5, -33], [0, 0, 0, 1]])


def _nifti(path, array=VOLUME, affine=AFFINE, unit="micron", codes=(1, 2)):
    image = nibabel.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units(unit)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header["cal_max"], image.header["descrip"] = 4000, b"a scan"
    nibabel.save(image, path)
    return path


def _hdf5(path, attributes=None, **datasets):
    with h5py.File(path, "w") as stream:
        for key, value in datasets.items():
            stream[key] = value
            for name, attribute in (attributes or {}).items():
                stream[key].attrs[name] = attribute
    return path


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "A.NII.GZ"])
def test_nifti_keeps_grid_unit_and_codes(tmp_path, name):
    volume = read_volume(_nifti(tmp_path / name))
    np.testing.assert_array_equal(volume.array, VOLUME)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
    assert (volume.form, volume.unit, volume.placed, volume.channels) == ("nifti", "micron", True, 1)
    np.testing.assert_allclose(volume.spacing, np.linalg.norm(AFFINE[:3, :3], axis=0), rtol=1e-6)
    assert volume.array.dtype == np.uint8 and volume.suffix == (".nii" if name == "a.nii" else ".nii.gz")
    for array in (LABEL, np.random.rand(*SHAPE).astype(np.float32)):
        back = nibabel.load(write_like(volume, tmp_path / "out" / f"b{volume.suffix}", array))
        np.testing.assert_array_equal(np.asanyarray(back.dataobj), array)
        assert back.get_data_dtype() == array.dtype and back.header.get_xyzt_units()[0] == "micron"
        np.testing.assert_allclose(back.affine, AFFINE, atol=1e-6)
        assert (back.header["qform_code"], back.header["sform_code"]) == (1, 2)
        assert float(back.header["cal_max"]) == 0  # the window of the scan is none for a label
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"b{volume.suffix}"]


def test_nifti_without_a_place_keeps_its_edges(tmp_path):
    path = _nifti(tmp_path / "a.nii.gz", affine=np.diag([2.0, 3, 4, 1]), codes=(0, 0))
    volume = read_volume(path)
    assert not volume.placed and "states no place" in volume.notes[0] and volume.spacing == (2, 3, 4)
    back = nibabel.load(write_like(volume, tmp_path / "b.nii.gz", LABEL))
    assert back.header.get_zooms() == (2, 3, 4)
    np.testing.assert_array_equal(back.affine, nibabel.load(path).affine)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 6, 7, 3), (5, 6, 7, 3)),
        ((5, 6, 7, 1), (5, 6, 7)),
        ((5, 6, 7, 1, 3), (5, 6, 7, 3)),
        ((5, 6), (5, 6, 1)),
        ((5, 6, 1), (5, 6, 1)),
        ((5, 6, 1, 2), (5, 6, 1, 2)),
    ],
)
def test_channels_of_nifti_come_last(tmp_path, shape, expected):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    volume = read_volume(_nifti(tmp_path / "a.nii.gz", array))
    assert volume.array.shape == expected and volume.shape == expected[:3]
    np.testing.assert_array_equal(volume.array.ravel(), array.ravel())
    write_like(volume, tmp_path / "b.nii.gz", np.zeros(expected[:3], np.uint8))


def test_scaled_nifti_comes_scaled_in_single_precision(tmp_path):
    image = nibabel.Nifti1Image(VOLUME.astype(np.float32) / 2, AFFINE)
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array, VOLUME / 2, atol=0.01)
    back = nibabel.load(write_like(volume, tmp_path / "b.nii.gz", LABEL))
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), LABEL)


@pytest.mark.parametrize(
    ("axes", "shape", "order"),
    [
        ("ZYX", (7, 6, 5), (2, 1, 0)),
        ("ZCYX", (7, 2, 6, 5), (3, 2, 0, 1)),
        ("ZYXS", (7, 6, 5, 3), (2, 1, 0, 3)),
        ("TYX", (7, 6, 5), (2, 1, 0)),
        ("CYX", (7, 6, 5), (2, 1, 0)),
    ],
)
@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m", "nm", "mm"])
def test_imagej_stacks(tmp_path, axes, shape, order, unit):
    array = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        imagej=True,
        resolution=(10, 5),
        metadata={"axes": axes, "spacing": 0.3, "unit": unit},
    )
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array, array.transpose(order))
    scale = 1e-3 if unit == "nm" else 1
    np.testing.assert_allclose(volume.spacing, np.array([0.1, 0.2, 0.3]) * scale, rtol=1e-5)
    assert volume.unit == ("mm" if unit == "mm" else "micron") and volume.form == "tiff" and not volume.placed
    assert bool(volume.notes) == (axes in ("TYX", "CYX"))
    np.testing.assert_array_equal(volume.affine, np.diag([*volume.spacing, 1]))


@pytest.mark.parametrize("name", ["a.nii.gz", "a.tif", "a.h5"])
def test_bytes_come_in_the_machines_order(tmp_path, name):
    """Torch takes no other."""
    values = np.random.default_rng(2).integers(0, 3000, SHAPE).astype(">i2" if "nii" in name else ">u2")
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, values.T, byteorder=">", metadata={"axes": "ZYX"})
    elif name == "a.h5":
        _hdf5(tmp_path / name, raw=values.T)
    else:
        header = nibabel.Nifti1Header(endianness=">")
        header.set_data_dtype(values.dtype)
        nibabel.save(nibabel.Nifti1Image(values, AFFINE, header), tmp_path / name)
        assert np.asanyarray(nibabel.load(tmp_path / name).dataobj).dtype.byteorder == ">"
    found = read_volume(tmp_path / name)
    assert found.array.dtype.isnative and np.array_equal(found.array, values)
    back = read_volume(write_like(found, tmp_path / f"b{found.suffix}", LABEL))
    assert np.array_equal(back.array, LABEL) and np.allclose(back.affine, found.affine)


@pytest.mark.parametrize("axes", ["ZYX", "ZCYX"])
def test_ome_stacks(tmp_path, axes):
    array = np.random.default_rng(1).integers(0, 255, (7, 2, 6, 5)[:: 1 if axes == "ZCYX" else -1][-len(axes) :])
    array = array.astype(np.uint16)
    metadata = {"axes": axes, "PhysicalSizeX": 100, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.2, "PhysicalSizeZ": 3}
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata={**metadata, "PhysicalSizeZUnit": "µm"})
    volume = read_volume(tmp_path / "a.ome.tif")
    np.testing.assert_allclose(volume.spacing, (0.1, 0.2, 3))
    expected = array.transpose(3, 2, 0, 1) if axes == "ZCYX" else array.T
    np.testing.assert_array_equal(volume.array, expected)


def test_plain_stacks_take_no_printers_resolution(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME.T, resolution=(72, 72), resolutionunit="INCH", photometric="minisblack")
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array, VOLUME)
    assert volume.unit == "unknown" and volume.spacing == (1, 1, 1) and "states no voxel edges" in volume.notes[0]
    assert read_volume(tmp_path / "a.tif", spacing="1,2,3").spacing == (1, 2, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("unit", ["um", None])
def test_answers_to_tiff_come_back(tmp_path, dtype, unit):
    metadata = {"axes": "ZYX"} | ({"spacing": 0.3, "unit": unit} if unit else {})
    tifffile.imwrite(tmp_path / "a.tif", VOLUME.T, imagej=True, resolution=(10, 5) if unit else None, metadata=metadata)
    volume = read_volume(tmp_path / "a.tif")
    assert volume.suffix == ".tif"
    answer = (VOLUME * 1.5).astype(dtype)
    back = read_volume(write_like(volume, tmp_path / "b.tif", answer))
    np.testing.assert_array_equal(back.array, answer)
    assert back.array.dtype == dtype
    if np.dtype(dtype) in (np.uint8, np.uint16, np.float32):
        np.testing.assert_allclose(back.spacing, volume.spacing, rtol=1e-5)
        assert back.unit == volume.unit
        with tifffile.TiffFile(tmp_path / "b.tif") as stream:
            assert stream.is_imagej and stream.series[0].axes == "ZYX"


@pytest.mark.parametrize("depth", [1, 7])
def test_a_page_is_a_volume_of_one_slice(tmp_path, depth):
    array = np.zeros((depth, 6, 5), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array[0] if depth == 1 else array, photometric="minisblack")
    volume = read_volume(tmp_path / "a.tif")
    assert volume.array.shape == (5, 6, depth)
    back = read_volume(write_like(volume, tmp_path / "b.tif", np.ones((5, 6, depth), np.uint8)))
    assert back.array.shape == (5, 6, depth)


@pytest.mark.parametrize(
    ("shape", "attributes", "expected"),
    [
        ((7, 6, 5), {}, (2, 1, 0)),
        ((2, 7, 6, 5), {}, (3, 2, 1, 0)),
        ((7, 6, 5, 2), {}, (2, 1, 0, 3)),
        ((7, 6, 5, 9), {"axistags": "zyxc"}, (2, 1, 0, 3)),
        ((5, 6, 7), {"axistags": "xyz"}, (0, 1, 2)),
    ],
)
def test_hdf5_axes(tmp_path, shape, attributes, expected):
    array = np.random.default_rng(0).integers(0, 9, shape).astype(np.int32)
    tags = {
        name: json.dumps({"axes": [{"key": axis} for axis in value]}) if name == "axistags" else value
        for name, value in attributes.items()
    }
    volume = read_volume(_hdf5(tmp_path / "a.h5", {"element_size_um": (3, 2, 1), **tags}, raw=array))
    np.testing.assert_array_equal(volume.array, array.transpose(expected))
    assert volume.spacing == (1, 2, 3) and volume.unit == "micron" and not volume.placed and volume.suffix == ".h5"
    back = read_volume(write_like(volume, tmp_path / "b.h5", np.ones(volume.shape, np.uint8), name="uncertainty"))
    assert back.shape == volume.shape and back.spacing == volume.spacing
    with h5py.File(tmp_path / "b.h5") as stream:
        assert list(stream) == ["uncertainty"]


def test_hdf5_with_axes_of_length_one(tmp_path):
    tags = json.dumps({"axes": [{"key": axis} for axis in "tzyxc"]})
    path = _hdf5(tmp_path / "a.h5", {"axistags": tags}, raw=VOLUME.T[None, ..., None])
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VOLUME)
    assert volume.unit == "unknown" and "element_size_um" in volume.notes[0]


def test_a_data_set_is_chosen_by_key_or_by_its_name(tmp_path):
    path = _hdf5(tmp_path / "a.h5", None, label=LABEL.T, raw=VOLUME.T)
    assert read_volume(path, key="/label").array.max() == 1
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VOLUME)
    assert "'raw' is read" in volume.notes[0]
    np.testing.assert_array_equal(read_volume(path, prefer=("label",)).array, LABEL)
    only = _hdf5(tmp_path / "b.h5", None, **{"group/deep": VOLUME.T})
    np.testing.assert_array_equal(read_volume(only).array, VOLUME)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.seg.nrrd"])
def test_what_itk_wrote(tmp_path, name):
    pytest.importorskip("itk")
    writer = ITKWriter(output_dtype=np.uint8, affine_lps_to_ras=True)
    affine = np.array([[-0.8, 0, 0, 11], [0, -0.9, 0, 22], [0, 0, 2.5, -33], [0, 0, 0, 1]])
    writer.set_data_array(VOLUME, channel_dim=None, squeeze_end_dims=False)
    writer.set_metadata({"affine": affine, "original_affine": affine}, resample=False)
    writer.write(str(tmp_path / name))
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array, VOLUME)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    assert volume.form == "world" and volume.placed and volume.suffix == name[-len(volume.suffix) :]
    back = read_volume(write_like(volume, tmp_path / f"b{volume.suffix}", LABEL))
    np.testing.assert_array_equal(back.array, LABEL)
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)


def test_a_folder_of_one_dicom_series(tmp_path):
    pytest.importorskip("pydicom")
    from dicom_series import ORIGIN, SPACING, slices, stored_scan, write

    stored = stored_scan()
    volume = read_volume(write(tmp_path / "series", slices(stored)))
    np.testing.assert_array_equal(volume.array, stored.astype(int) - 1024)
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1])
    affine[:3, 3] = np.array(ORIGIN) * (-1, -1, 1)
    np.testing.assert_allclose(volume.affine, affine)
    back = nibabel.load(write_like(volume, tmp_path / f"b{volume.suffix}", np.ones(volume.shape, np.uint8)))
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)
    assert volume.suffix == ".nii.gz" and back.header.get_xyzt_units()[0] == "mm"
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="'nothing' can not be read .* DICOM needs pydicom or ITK"):
        read_volume(tmp_path / "nothing")


@pytest.mark.parametrize("value", ["1,2", "a,b,c", (1, 0, 1), "1 2 -3", (1, 2, float("nan"))])
def test_spacing_must_be_three_edges(value):
    with pytest.raises(InputError, match="three positive numbers"):
        parse_spacing(value)


@pytest.mark.parametrize("value", [None, "none", ""])
def test_no_spacing_is_none(value):
    assert parse_spacing(value) is None


def _colours(path):
    dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, dtype), np.eye(4)), path)


def _truncated(path):
    _nifti(path)
    path.write_bytes(path.read_bytes()[:120])


def _text(path):
    path.write_text("no volume")


@pytest.mark.parametrize(
    ("name", "write", "options", "text"),
    [
        ("a.nii.gz", lambda path: None, {}, "does not exist"),
        ("a.nii.gz", lambda path: path.touch(), {}, "is empty"),
        ("a.nii.gz", _truncated, {}, "a.nii.gz.*fetch or make"),
        ("a.nii.gz", _colours, {}, "holds colours"),
        ("a.nii.gz", _nifti, {"spacing": "1,1,1"}, "states its own: it can be given for TIFF and HDF5"),
        ("a.png", _text, {}, "format that is not read here: volumes are NIfTI, TIFF"),
        ("a.tif", _text, {}, "can not be read .*: it must be a whole TIFF stack"),
        ("a.h5", _text, {}, "it must be a whole HDF5 file"),
        ("a.nrrd", _text, {}, "'a.nrrd' can not be read"),
        ("a.h5", lambda path: _hdf5(path, raw=VOLUME), {"key": "rew"}, "no data set 'rew'.*pass --key raw"),
        ("a.h5", lambda path: _hdf5(path, a=VOLUME, b=VOLUME), {}, "data sets: a, b: .* name it with --key"),
        (
            "a.h5",
            lambda path: _hdf5(path, a=np.zeros((2, 3, 4, 5, 6))),
            {},
            r"shape \(2, 3, 4, 5, 6\): a volume is Z Y",
        ),
        (
            "a.tif",
            lambda path: tifffile.imwrite(path, np.zeros((3, 4, 5, 6), "u1"), imagej=True, metadata={"axes": "TZYX"}),
            {},
            r"axes TZYX \(3 x 4 x 5 x 6\)",
        ),
    ],
)
def test_what_is_no_volume_is_named(tmp_path, name, write, options, text):
    write(tmp_path / name)
    with pytest.raises(InputError, match=text):
        read_volume(tmp_path / name, **options)


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("b.nii.gz", (7, 6, 5), r"would have shape \(7, 6, 5\): it must have the shape of 'a.nii.gz', \(5, 6, 7\)"),
        ("b.tif", SHAPE, "does not end in .nii.gz"),
    ],
)
def test_answers_must_fit(tmp_path, name, shape, text):
    volume = read_volume(_nifti(tmp_path / "a.nii.gz"))
    with pytest.raises(InputError, match=text):
        write_like(volume, tmp_path / name, np.zeros(shape, np.uint8))


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    volume = read_volume(_nifti(tmp_path / "a.nii.gz"))
    write_like(volume, tmp_path / "b.nii.gz", LABEL)
    old = (tmp_path / "b.nii.gz").read_bytes()

    def full(image, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.data.volume_file.nibabel.save", full)
    with pytest.raises(InputError, match="No space left"):
        write_like(volume, tmp_path / "b.nii.gz", 1 - LABEL)
    assert (tmp_path / "b.nii.gz").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]
