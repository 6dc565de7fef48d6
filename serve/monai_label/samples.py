"""Small uploads for trying a server: a DICOM series of a volume, and what no server should stumble over."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

Slices = list[pydicom.Dataset]
NAME, IDENTITY = "Nobody^Knows", "ID-4711"
MPEG2 = "1.2.840.10008.1.2.4.100"


def series(volume: np.ndarray, affine: np.ndarray, seed: str = "one", modality: str = "CT") -> Slices:
    """A series of a volume, its slices along the last axis.

    Args:
        volume: X Y Z, whole numbers within int16.
        affine: 4x4, voxel to mm (RAS), without shear.
        seed: the series' UIDs follow from it.
        modality: CT or MR.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    study, uid = (generate_uid(entropy_srcs=[seed, part]) for part in ("study", "series"))
    kind = CTImageStorage if modality == "CT" else MRImageStorage
    made = []
    for number in range(volume.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, kind
        one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        one.is_little_endian, one.is_implicit_VR = True, False
        one.SOPClassUID, one.Modality = kind, modality
        one.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[seed, str(number)])
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, uid, study
        one.PatientName, one.PatientID = NAME, IDENTITY
        one.InstanceNumber, one.SeriesNumber = number + 1, 1
        one.ImagePositionPatient = [f"{value:.10g}" for value in (lps @ [0, 0, number, 1])[:3]]
        one.ImageOrientationPatient = [f"{value:.10g}" for value in directions[:, :2].T.ravel()]
        one.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"]
        one.SliceThickness = f"{spacing[2]:.10g}"
        one.Columns, one.Rows = volume.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 1
        one.RescaleSlope, one.RescaleIntercept = "1", "0"
        one.PixelData = np.ascontiguousarray(volume[..., number].T, np.int16).tobytes()
        made.append(one)
    return made


def encoded(one: pydicom.Dataset) -> bytes:
    """The file of a slice."""
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, one)
    return stream.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of files by their names, as they stand."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def zipped_series(volume: np.ndarray, affine: np.ndarray, change: Callable[[Slices], None] | None = None) -> bytes:
    """A zip of a series, after `change` was made to its slices."""
    made = series(volume, affine)
    if change is not None:
        change(made)
    return zipped({f"series/{number:04d}.dcm": encoded(one) for number, one in enumerate(made)})


def _small() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(-1000, 200, (16, 14, 8)), np.diag([-2.0, -2.0, 4.0, 1.0])


def _without_pixels(made: Slices) -> None:
    for one in made:
        del one.PixelData


def _cut(made: Slices) -> None:
    made[3].PixelData = made[3].PixelData[:40]


def _of_two_sizes(made: Slices) -> None:
    made[3].Rows = 7
    made[3].PixelData = made[3].PixelData[: 7 * 16 * 2]


def _as_video(made: Slices) -> None:
    for one in made:
        one.file_meta.TransferSyntaxUID = MPEG2
        one.PixelData = pydicom.encaps.encapsulate([b"\0\0\1\xb3 no picture "])
        one["PixelData"].is_undefined_length = True


def _without_a_slice(made: Slices) -> None:
    del made[3]


def _bomb() -> bytes:
    """A zip whose one file unpacks to a thousand times its size."""
    return zipped({"zeros.dcm": bytes(64 << 20)})


def _link() -> bytes:
    entry = zipfile.ZipInfo("link.dcm")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(entry, "/etc/hostname")
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("../../escaped_tar.txt")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"out\n"))
    return stream.getvalue()


def nifti(array: np.ndarray) -> bytes:
    """A ``.nii.gz`` of an array on a grid of 1 mm."""
    return gzip.compress(nib.Nifti1Image(array, np.eye(4)).to_bytes())


def _vast() -> bytes:
    """A header that promises 64 TiB, and four bytes."""
    header = bytearray(nib.Nifti1Image(np.zeros((2, 2, 2), np.float64), np.eye(4)).to_bytes()[:352])
    header[40:56] = struct.pack("<8h", 3, 20000, 20000, 20000, 1, 1, 1, 1)
    return gzip.compress(bytes(header) + b"\0\0\0\0")


def _nrrd(content: bytes, *fields: str) -> bytes:
    """A compressed NRRD of 16 x 14 x 8 voxels, whatever its content is."""
    lines = ["NRRD0004", "type: int16", "dimension: 3", "sizes: 16 14 8", "endian: little", "encoding: gzip"]
    return "\n".join([*lines, *fields, "", ""]).encode() + gzip.compress(content)


def archives() -> dict[str, tuple[str, bytes]]:
    """Archives that should be refused: what is wrong with each -> its name and content."""
    volume, affine = _small()
    changes = {
        "no pixel data": _without_pixels,
        "pixel data cut short": _cut,
        "slices of two sizes": _of_two_sizes,
        "an unreadable transfer syntax": _as_video,
        "a missing slice": _without_a_slice,
    }
    found = {told: ("series.zip", zipped_series(volume, affine, change)) for told, change in changes.items()}
    two = [*series(volume, affine), *series(volume, affine, "two")]
    found |= {
        "two series": ("two.zip", zipped({f"{number}.dcm": encoded(one) for number, one in enumerate(two)})),
        "a path that leaves its folder": ("slip.zip", zipped({"../../escaped.txt": b"out\n"})),
        "an absolute path": ("absolute.zip", zipped({"/tmp/escaped_absolute.txt": b"out\n"})),
        "a link": ("link.zip", _link()),
        "a zip bomb": ("bomb.zip", _bomb()),
        "no series in it": ("text.zip", zipped({"read.me": b"nothing here"})),
        "an empty zip": ("empty.zip", zipped({})),
        "no zip": ("broken.zip", b"PK\x03\x04 and then nothing"),
        "a tar that leaves its folder": ("slip.tar", _tar()),
    }
    return found


def volumes() -> dict[str, tuple[str, bytes]]:
    """Single volumes that should be refused: what is wrong with each -> its name and content."""
    whole = nifti(_small()[0].astype(np.int16))
    return {
        "no volume": ("noise.nii.gz", bytes(range(256)) * 8),
        "a volume cut short": ("cut.nii.gz", whole[: len(whole) // 2]),
        "an empty file": ("empty.nii.gz", b""),
        "a header that promises 64 TiB": ("vast.nii.gz", _vast()),
        "an NRRD that unpacks to more than it promises": ("more.nrrd", _nrrd(bytes(64 << 20))),
        "an NRRD that unpacks to less than it promises": ("less.nrrd", _nrrd(bytes(100))),
        "an NRRD that points to another file": ("points.nrrd", _nrrd(b"", "Data File: /etc/hostname")),
        "a header that points to another file": ("a.mhd", b"ObjectType = Image\nElementDataFile = sub/a.raw\n"),
        "an unknown format": ("notes.txt", b"no volume"),
        "values that are not numbers": ("nan.nii.gz", nifti(np.full((16, 14, 8), np.nan, np.float32))),
        "a volume of one slice in two dimensions": ("flat.nii.gz", nifti(np.zeros((16, 14), np.int16))),
    }
