"""The voxels of a series and where they lie, against two other readers; what is no volume is refused."""

from __future__ import annotations

import gzip
import itertools

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_series import AXIAL, ORIGIN, SHAPE, SPACING, stored_scan
from studies import CORONAL, MIRRORED, OBLIQUE, SAGITTAL, SECRETS, write_frames, write_series

from common.checks import InputError
from common.dicom.series import find_series
from common.dicom.volume import read_series, stage_series

DIRECTIONS = [AXIAL, MIRRORED, SAGITTAL, CORONAL, OBLIQUE, (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)]
BACKWARDS = range(SHAPE[2] - 1, -1, -1)


def itk_volume(image):
    """Voxels X Y Z of an image of SimpleITK, and its affine in RAS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


def itk_series(folder):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return itk_volume(reader.Execute())


def highdicom_volume(volume):
    """Voxels X Y Z of a volume of highdicom (slices backwards, rows, columns), and its affine in RAS."""
    forwards = volume.flip_spatial(0)
    return forwards.array.T, forwards.get_affine("RAS") @ np.eye(4)[[2, 1, 0, 3]].T


def only(place):
    (series,) = find_series(place)
    return series


@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("names", [None, BACKWARDS, [3, 0, 5, 1, 4, 2]])
def test_voxels_and_affine_are_those_of_two_other_readers(tmp_path, directions, names):
    """Oblique and mirrored; slices with gaps between them; files in any order."""
    folder = write_series(tmp_path, stored_scan(), directions, names)
    volume = read_series(only(folder))
    assert volume.array.dtype == np.int16 and volume.modality == "CT"
    assert np.linalg.norm(volume.affine[:3, :3], axis=0) == pytest.approx(SPACING, abs=1e-4)
    datasets = [pydicom.dcmread(path) for path in folder.iterdir()]
    for values, affine in (
        itk_series(folder),
        highdicom_volume(highdicom.get_volume_from_series(datasets)),
    ):
        np.testing.assert_array_equal(volume.array, values)
        np.testing.assert_allclose(volume.affine, affine, atol=2e-4)


def test_every_voxel_lies_where_its_header_says(tmp_path):
    """Slow and obvious: voxel by voxel, without any reader."""
    stored = stored_scan()
    volume = read_series(only(write_series(tmp_path, stored, OBLIQUE, BACKWARDS)))
    x, y = np.array(OBLIQUE[:3]), np.array(OBLIQUE[3:])
    for i, j, k in itertools.product(*map(range, SHAPE)):
        lps = np.array(ORIGIN) + i * SPACING[0] * x + j * SPACING[1] * y + k * SPACING[2] * np.cross(x, y)
        np.testing.assert_allclose(volume.affine @ [i, j, k, 1], [*(lps * [-1, -1, 1]), 1], atol=1e-3)
    np.testing.assert_array_equal(volume.array, stored.astype(int) - 1024)


@pytest.mark.parametrize(
    ("stored", "rescale", "kind"),
    [
        (stored_scan(), lambda number: (1.0 + number, -1024.0 - number), np.int16),
        (stored_scan(), lambda number: (0.25 * (number + 1), -0.5), np.float32),
        (stored_scan().astype(np.int16) - 1024, lambda number: (1.0, 0.0), np.int16),
        (np.full(SHAPE, 65535, np.uint16), lambda number: (1.0, 0.0), np.float32),
        (np.where(np.arange(SHAPE[2]) == 5, 65535, stored_scan()).astype(np.uint16), lambda n: (1, 0), np.float32),
        (stored_scan().astype(np.uint8), lambda number: (1.0, -3.0), np.int16),
    ],
)
def test_a_scale_of_its_own_for_each_slice(tmp_path, stored, rescale, kind):
    def change(one, number):
        one.RescaleSlope, one.RescaleIntercept = rescale(number)

    folder = write_series(tmp_path, stored, change=change)
    values = read_series(only(folder)).array
    slope, intercept = np.transpose([rescale(number) for number in range(SHAPE[2])])
    np.testing.assert_array_equal(values, stored * slope + intercept)
    np.testing.assert_array_equal(values, itk_series(folder)[0])
    assert values.dtype == kind


def test_magnetic_resonance_needs_no_scale(tmp_path):
    folder = write_series(tmp_path, stored_scan(), tags={"modality": "MR"}, rescale=None)
    np.testing.assert_array_equal(read_series(only(folder)).array, stored_scan())


def test_a_tilt_below_what_headers_round_is_taken_as_straight(tmp_path):
    """0.4 degrees, by which the last of many slices lies more than a pixel aside."""
    many = np.tile(stored_scan()[:3, :3], (1, 1, 15))
    volume = read_series(only(write_series(tmp_path, many, shear=(0.0, SPACING[2] * np.tan(np.radians(0.4))))))
    axes = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)


def test_a_scale_for_some_slices_alone_is_refused_whatever_was_recorded(tmp_path):
    folder = write_series(tmp_path, stored_scan(), tags={"modality": "MR"}, change=_without("RescaleSlope", 0, 4))
    with pytest.raises(InputError, match="2 of its 6 slices have no rescale slope.*a series states"):
        read_series(only(folder))


@pytest.mark.parametrize(("gap", "step"), [("4.5", 4.5), (None, 1.5)])
def test_a_single_slice_is_as_thick_as_its_header_says(tmp_path, gap, step):
    def change(one, number):
        if gap:
            one.SpacingBetweenSlices = gap

    volume = read_series(only(write_series(tmp_path, stored_scan()[..., :1], OBLIQUE, change=change)))
    assert volume.array.shape == (*SHAPE[:2], 1)
    assert np.linalg.norm(volume.affine[:3, 2]) == pytest.approx(step)
    np.testing.assert_allclose(volume.affine[:3, 3], np.array(ORIGIN) * [-1, -1, 1])


def test_positions_may_be_rounded(tmp_path):
    def change(one, number):
        one.ImagePositionPatient[2] = f"{float(one.ImagePositionPatient[2]) + 0.2 * (-1) ** number:.4g}"

    volume = read_series(only(write_series(tmp_path, stored_scan(), change=change)))
    assert np.linalg.norm(volume.affine[:3, 2]) == pytest.approx(SPACING[2], rel=0.1)


@pytest.mark.parametrize("directions", [AXIAL, MIRRORED, OBLIQUE])
@pytest.mark.parametrize("scales", [None, [(0.5 * (number + 1), -number) for number in range(SHAPE[2])]])
def test_frames_of_one_file(tmp_path, directions, scales):
    """An Enhanced MR, its frames in no order, against highdicom and against what was written."""
    path = write_frames(tmp_path / "x", [stored_scan()], directions, scales)
    volume = read_series(only(tmp_path))
    values, affine = highdicom_volume(highdicom.imread(path).get_volume())
    np.testing.assert_array_equal(volume.array, values)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    slope, intercept = np.transpose(scales) if scales else (1, 0)
    np.testing.assert_array_equal(volume.array, stored_scan() * slope + intercept)


@pytest.mark.parametrize(("shared", "expected"), [(True, 2.0), (False, 3.0)])
def test_the_nearest_scale_of_a_frame_counts(tmp_path, shared, expected):
    """Its own, or else that of all frames, or else that of the file."""
    path = write_frames(tmp_path / "x", [stored_scan()])
    one, scale = pydicom.dcmread(path), pydicom.Dataset()
    one.RescaleSlope, one.RescaleIntercept = 3, 0
    scale.RescaleSlope, scale.RescaleIntercept = 2, 0
    if shared:
        one.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [scale]
    one.save_as(path)
    np.testing.assert_array_equal(read_series(only(path)).array, expected * stored_scan())
    own = pydicom.Dataset()
    own.RescaleSlope, own.RescaleIntercept = 5, -1
    for frame in one.PerFrameFunctionalGroupsSequence:
        frame.PixelValueTransformationSequence = [own]
    one.save_as(path)
    np.testing.assert_array_equal(read_series(only(path)).array, 5.0 * stored_scan() - 1)


def test_echoes_of_one_file_are_volumes_of_their_own(tmp_path):
    volumes = [stored_scan(seed) for seed in range(3)]
    found = find_series(write_frames(tmp_path / "x", volumes))
    assert [one.name for one in found] == [f"{found[0].name[:-2]}_{number}" for number in (1, 2, 3)]
    held = [read_series(one).array for one in found]
    assert all(any(np.array_equal(one, volume) for one in held) for volume in volumes)


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLSLossless"])
def test_compressed_pixels(tmp_path, syntax):
    def change(one, number):
        one.compress(getattr(pydicom.uid, syntax), generate_instance_uid=False)

    folder = write_series(tmp_path, stored_scan(), change=change)
    np.testing.assert_array_equal(read_series(only(folder)).array, stored_scan().astype(int) - 1024)


@pytest.mark.parametrize("implicit", [False, True])
def test_files_of_old_archives_begin_without_preamble_and_transfer_syntax(tmp_path, implicit):
    folder = write_series(tmp_path, stored_scan(), OBLIQUE)
    expected = read_series(only(folder))
    for path in folder.iterdir():
        one = pydicom.dcmread(path)
        bare = pydicom.Dataset({element.tag: element for element in one})
        bare.save_as(path, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[:2] == b"\x08\x00"
    volume = read_series(only(folder))
    np.testing.assert_array_equal(volume.array, expected.array)
    np.testing.assert_array_equal(volume.affine, expected.affine)


def _set(keyword, value, *numbers):
    def change(one, number):
        if not numbers or number in numbers:
            setattr(one, keyword, value)

    return change


def _without(keyword, *numbers):
    def change(one, number):
        if not numbers or number in numbers:
            delattr(one, keyword)

    return change


def _moved(shift, *numbers):
    def change(one, number):
        if number in numbers:
            place = np.array(one.ImagePositionPatient, float) + shift
            one.ImagePositionPatient = [f"{value:.6g}" for value in place]

    return change


def _coloured(one, number):
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
    one.PixelData = 3 * one.PixelData


def _encapsulated(syntax):
    def change(one, number):
        one.file_meta.TransferSyntaxUID = syntax
        one.PixelData = pydicom.encaps.encapsulate([b"not decoded here"])
        one["PixelData"].VR = "OB"

    return change


def _truncated(one, number):
    if number == 2:
        one.PixelData = one.PixelData[:20]


FAULTS = [
    (_without("ImagePositionPatient", 1, 2), {}, "2 of its 6 images have no ImagePositionPatient.*export the series"),
    (_without("ImageOrientationPatient"), {}, "6 of its 6 images have no ImageOrientationPatient"),
    (_without("PixelSpacing"), {}, "6 of its 6 slices have no pixel spacing"),
    (_set("PixelSpacing", [1, 1], 3), {}, "slices differ in pixel spacing"),
    (_set("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), {}, "no pair of perpendicular unit vectors"),
    (_moved((0, 0, 1.2), 3), {}, "unevenly spaced.*equal distances"),
    (
        _moved((0, 0, -2.5), 3),
        {},
        r"different slices lie at one place \(105.00 mm\).*one slice at each place",
    ),
    (_moved((0, 0, 25), 4, 5), {}, r"about 10 of its slices are missing \(the first between 107.50 and 135.00 mm\)"),
    (_moved((3, 0, 0), 3), {}, "shifted sideways.*common field of view"),
    (None, {"shear": (0.0, 0.9)}, r"tilted by 19\.8 degrees.*stand upright.*resample it to slices at right angles"),
    (None, {"rescale": None}, "6 of its 6 slices have no rescale slope and intercept.*what its stored values mean"),
    (_without("RescaleSlope", 2), {}, "1 of its 6 slices have no rescale slope"),
    (_set("RescaleSlope", "0", 2), {}, "slice 3 of 6 has a rescale slope of 0.*other than 0"),
    (_truncated, {}, r"the pixels of slice 3 of 6 can not be read \(ValueError\).*files must be whole"),
    (_without("PixelData", 4), {}, "slice 5 of 6 has no pixel data.*every image needs its pixels"),
    (_coloured, {}, "slice 1 of 6 is in colour.*one grey value"),
    (
        _encapsulated(pydicom.uid.JPEGLosslessSV1),
        {},
        "compressed as 'JPEG Lossless.*no decoder is installed.*pip install pylibjpeg pylibjpeg-libjpeg; or export",
    ),
    (_encapsulated(pydicom.uid.HTJ2KLossless), {}, "compressed as 'High.*pip install pylibjpeg pylibjpeg-openjpeg"),
    (_encapsulated(pydicom.uid.MPEG2MPML), {}, "compressed as 'MPEG2.*To mend it, export the series uncompressed"),
]


@pytest.mark.parametrize(("change", "options", "text"), FAULTS, ids=[text[:30] for *_, text in FAULTS])
def test_what_is_no_volume_is_refused_with_its_neutral_name(tmp_path, change, options, text):
    series = only(write_series(tmp_path / "Doe_Jane", stored_scan(), change=change, **options))
    with pytest.raises(InputError, match=f"^{series.name} can not be used because .*{text}") as caught:
        read_series(series)
    assert not any(secret in str(caught.value) for secret in (*SECRETS, str(tmp_path), "jane_doe"))
    assert caught.value.__suppress_context__ and caught.value.__cause__ is None
    with pytest.raises(InputError, match=text):
        stage_series(series, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_decoder_of_jpeg_2000_that_is_missing_is_named(tmp_path, monkeypatch):
    decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEG2000Lossless)
    monkeypatch.setattr(decoder, "_available", {})
    series = only(write_series(tmp_path, stored_scan(), change=_encapsulated(pydicom.uid.JPEG2000Lossless)))
    with pytest.raises(InputError, match="'JPEG 2000 .*run: pip install pylibjpeg pylibjpeg-openjpeg; or export"):
        read_series(series)


def test_a_private_transfer_syntax(tmp_path):
    folder = write_series(tmp_path, stored_scan(), change=_encapsulated(pydicom.uid.JPEGLosslessSV1))
    for path in folder.iterdir():
        private = path.read_bytes().replace(b"1.2.840.10008.1.2.4.70", b"1.2.826.0.1.3680043.88")
        path.write_bytes(private)
    with pytest.raises(InputError, match="compressed as a private transfer syntax.*mend it, export the series uncomp"):
        read_series(only(folder))


def test_frames_without_places(tmp_path):
    path = write_frames(tmp_path / "x", [stored_scan()])
    one = pydicom.dcmread(path)
    del one.PerFrameFunctionalGroupsSequence
    one.ImagePositionPatient = [0, 0, 0]  # of which frame?
    one.save_as(path)
    with pytest.raises(InputError, match="6 of its 6 images have no ImagePositionPatient"):
        read_series(only(path))


def test_a_file_that_changes_while_it_is_read(tmp_path):
    series = only(write_series(tmp_path, stored_scan()))
    one = pydicom.dcmread(series.files[3])
    one.Rows, one.PixelData = 4, one.PixelData[: 9 * 4 * 2]
    one.save_as(series.files[3])
    with pytest.raises(InputError, match="slice 4 of 6 has 4x9 pixels, not the 8x9 it had before.*start again"):
        read_series(series)
    series.files[3].unlink()
    with pytest.raises(InputError, match=r"slice 4 of 6 can not be read \(FileNotFoundError\)") as caught:
        read_series(series)
    assert str(tmp_path) not in str(caught.value)


def test_a_header_that_claims_any_size_takes_no_memory(tmp_path):
    series = only(write_series(tmp_path, stored_scan(), change=lambda one, _: setattr(one, "Rows", 65535)))
    with pytest.raises(InputError, match="the pixels of slice 1 of 6 can not be read"):
        read_series(series)


@pytest.mark.parametrize(("directions", "tags"), [(OBLIQUE, {}), (MIRRORED, {"modality": "MR"})])
def test_staged_as_nifti_with_nothing_of_the_patient(tmp_path, directions, tags):
    series = only(write_series(tmp_path / "Doe_Jane", stored_scan(), directions, BACKWARDS, tags=tags))
    volume = read_series(series)
    path = stage_series(series, tmp_path / "staged")
    assert path == tmp_path / "staged" / f"{series.name}.nii.gz" and list(path.parent.iterdir()) == [path]
    image = nibabel.load(path)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), volume.array)
    assert image.get_data_dtype() == np.int16 and image.header.get_xyzt_units()[0] == "mm"
    for affine, code in (image.get_qform(coded=True), image.get_sform(coded=True)):
        np.testing.assert_allclose(affine, volume.affine, atol=1e-4)
        assert code == 1
    assert image.header["descrip"] == f"modality={volume.modality}".encode()
    content = gzip.decompress(path.read_bytes()) + path.read_bytes()[:64]
    assert not any(secret.encode() in content for secret in SECRETS)
    np.testing.assert_allclose(itk_volume(SimpleITK.ReadImage(str(path)))[1], volume.affine, atol=1e-4)
    again = stage_series(series, tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()
