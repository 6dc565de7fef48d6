"""DICOM studies of a patient with a name, and a line of MONAI that pretends to segment."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path

import dicom_series
import nibabel
import numpy as np
import pydicom
from pydicom.uid import generate_uid

from common.data.cases import inference_cases
from common.files import case_name, sha256, write_json
from common.transforms.save import CaseNames

# none of these may be in what is written, but for DICOM SEG itself
SECRETS = ("Mustermann", "PAT-4711", "19470811", "Dr Secret", "1.2.826.0.1.3680043")


def study(folder: Path, seed: int = 0, modality: str = "CT", values: np.ndarray | None = None, number: int = 1) -> Path:
    """Write a series into a folder of its own; its UID follows from `seed`."""
    uid = generate_uid(entropy_srcs=["series", str(seed)])

    def named(one, slice_number):
        one.PatientName, one.PatientID, one.PatientBirthDate = "Mustermann^Erika", "PAT-4711", "19470811"
        one.PatientSex, one.StudyDate, one.StudyTime, one.AccessionNumber, one.StudyID = (
            "F",
            "20200102",
            "1200",
            "",
            "1",
        )
        one.StudyInstanceUID = generate_uid(entropy_srcs=["study", str(seed)])
        one.SeriesInstanceUID = uid
        one.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", str(seed)])
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=["image", str(seed), str(slice_number)]
        )
        one.Modality, one.SeriesNumber, one.InstanceNumber = modality, number, slice_number + 1
        one.SeriesDescription, one.SliceThickness = "seen by Dr Secret", dicom_series.SPACING[2]

    stored = dicom_series.stored_scan(seed) if values is None else values
    return dicom_series.write(folder, dicom_series.slices(stored, change=named))


def volume(path: Path, seed: int = 0) -> Path:
    """Write a small NIfTI volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 100, (5, 6, 7)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1, 2, 1])), path)
    return path


class Line:
    """Stands in for the run of a line: labels what is above 0, fails a case of which the name says so.

    Attributes:
        commands: what would have run.
        stop_after: number of cases after which it is interrupted.
        class_names: classes that reports give volumes of.
    """

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.stop_after: int | None = None
        self.class_names = ["background", "liver", "tumour"]

    @property
    def last(self) -> dict[str, str]:
        """Overrides of the last line."""
        words = self.commands[-1][6:]
        return dict(zip([word.removeprefix("--") for word in words[::2]], words[1::2], strict=True))

    def __call__(self, command: Sequence[str], verbose: bool = False) -> int:
        self.commands.append(list(command))
        source, out = self.last["dataset_dir"], Path(self.last["output_dir"])
        cases = inference_cases(ast.literal_eval(source) if source.startswith("[") else source)
        self.cases, names, reports, failures = [Path(case["image"]) for case in cases], CaseNames(), [], []
        for number, path in enumerate(self.cases):
            if number == self.stop_after:
                return 130
            if "broken" in path.name:
                failures.append({"case": path.name, "error": f"'{path}' is broken"})
                continue
            image = nibabel.load(path)
            label = (np.asarray(image.dataobj) > 0).astype(np.uint8)
            name = names(path)
            nibabel.save(nibabel.Nifti1Image(label, image.affine), out / f"{name}_seg.nii.gz")
            reports.append({"case": name, "input_sha256": sha256(path), "run": len(self.commands)})
            reports[-1]["volumes"] = {one: {"ml": 1.0} for one in self.class_names}
            write_json(out / f"{name}_report.json", {**reports[-1], "weights": None, "versions": {"x": "1"}})
        write_json(out / "predictions.json", {"cases": reports, "failures": failures})
        if failures:
            write_json(out / "failures.json", failures)
        return 2 if failures else 0

    @property
    def names(self) -> list[str]:
        """The cases of the last line."""
        return sorted(map(case_name, self.cases))


def read(path: Path) -> dict:
    """A JSON file."""
    return json.loads(path.read_text())


def segmented(path: Path, segment: int, shape: Sequence[int]) -> np.ndarray:
    """A segment of a DICOM SEG of such a series, X Y Z, its frames placed by their positions."""
    one = pydicom.dcmread(path)
    volume = np.zeros(shape, bool)
    for item, frame in zip(
        one.PerFrameFunctionalGroupsSequence, one.pixel_array.reshape(-1, *shape[1::-1]), strict=True
    ):
        place = float(item.PlanePositionSequence[0].ImagePositionPatient[2])
        if int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber) == segment:
            volume[..., round((place - dicom_series.ORIGIN[2]) / dicom_series.SPACING[2])] = frame.T
    return volume


def leaks(folder: Path, told: str) -> list[str]:
    """What is found of the patient in names and contents of all files but DICOM SEG, and in what was told."""
    found = [secret for secret in SECRETS if secret in told]
    for path in folder.rglob("*"):
        found += [f"{secret} in {path.name}" for secret in SECRETS if secret in str(path.relative_to(folder))]
        if path.is_file() and path.suffix != ".dcm":
            content = path.read_bytes()
            if path.name.endswith(".gz"):
                image = nibabel.load(path)
                content = bytes(image.header.binaryblock) + np.asarray(image.dataobj).tobytes()
            found += [f"{secret} in {path.name}" for secret in SECRETS if secret.encode() in content]
    return found
