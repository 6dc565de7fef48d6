"""Whether a packed bundle answers in MONAI Deploy as it answers by itself.

    python certify.py --bundle PACKED --work EMPTY --data DECATHLON

Started in the environment of MONAI Deploy. In the folders of a MONAI Application Package the application reads a series
made from a volume of the data set, oblique and with its slices in reverse, and writes DICOM SEG; the same series, read
by SimpleITK, goes through ``python -m monai.bundle run`` of the same bundle. Both labels must be equal voxel for voxel.
A bundle without codes for DICOM (``dicom_segments``) is given the volume as NIfTI. The last line is RESULT and the
outcome in JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
from made_series import PATIENT, write_series

HERE = Path(__file__).resolve().parent
# weights of a seed for a bundle's network, in place of its own
FRESH = """
import sys, torch
from monai.bundle import ConfigParser
sys.path.insert(0, ".")
parser = ConfigParser()
parser.read_config("configs/inference.json")
torch.manual_seed(int(sys.argv[1]))
torch.save(parser.get_parsed_content("network_def").state_dict(), "models/model.pt")
"""


class Failed(Exception):
    """What did not hold; the text says what."""


def first_volume(data: Path) -> Path:
    """The first volume of a Decathlon folder."""
    content = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    cases = content.get("training") or content.get("test") or []
    if not cases:
        raise Failed("the data set lists no case")
    return data / (cases[0]["image"] if isinstance(cases[0], Mapping) else cases[0])


def oblique_series(volume: Path, folder: Path, modality: str) -> list[pydicom.Dataset]:
    """A series made from a volume: turned by 0.2 about one axis and 0.1 about another, slices from top to bottom."""
    image = nib.load(volume)
    values = np.asarray(image.dataobj, dtype=np.float64)
    edges = np.linalg.norm(image.affine[:3, :3], axis=0)
    (c, s), (d, t) = ((np.cos(angle), np.sin(angle)) for angle in (0.2, 0.1))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])
    lies = image.affine.copy()
    lies[:3, :3] = turn @ (image.affine[:3, :3] / edges) @ np.diag(edges)
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = values.shape[2] - 1
    return write_series(values[:, :, ::-1], lies @ flip, folder, modality)


def read_by_itk(folder: Path, out: Path) -> None:
    """Write a series as NIfTI, geometry and values by SimpleITK."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    array = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine.round(9)), out)


def own_answer(bundle: Path, volume: Path, out: Path) -> nib.Nifti1Image:
    """What ``python -m monai.bundle run`` of the bundle writes for a volume."""
    words = ["--config_file", str(bundle / "configs" / "inference.json"), "--dataset_dir", str(volume)]
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *words, "--output_dir", str(out)],
        cwd=bundle,
        capture_output=True,
        text=True,
    )
    labels = list(out.rglob("*_seg.nii.gz"))
    if done.returncode or len(labels) != 1:
        raise Failed(f"python -m monai.bundle run ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return nib.load(labels[0])


def telling_answer(bundle: Path, volume: Path, work: Path) -> tuple[str, nib.Nifti1Image]:
    """The answer of a bundle, with weights whose answer would show a turn: it holds several values.

    Args:
        bundle: a copy, written into: where the weights of one short epoch find nothing, fresh ones take their place.
        volume: what is answered.
        work: an empty folder.

    Returns:
        which weights these are, and the answer.

    Raises:
        Failed: where no weights that were tried answer more than one value.
    """
    told = "its own weights"
    for number in range(1, 6):
        answer = own_answer(bundle, volume, work / str(number))
        if len(np.unique(np.asarray(answer.dataobj))) > 1:
            return told, answer
        subprocess.run([sys.executable, "-c", FRESH, str(number)], cwd=bundle, check=True, capture_output=True)
        told = f"fresh weights of seed {number}"
    raise Failed("no weights that were tried answer more than one value: an equal answer would prove nothing")


class Package:
    """The folders of a MONAI Application Package, and the application run in them as its container would run it.

    Args:
        root: an empty folder.
        bundle: the packed bundle.
    """

    def __init__(self, root: Path, bundle: Path) -> None:
        self.app, self.models = root / "opt" / "holoscan" / "app", root / "opt" / "holoscan" / "models"
        self.input, self.output = root / "var" / "holoscan" / "input", root / "var" / "holoscan" / "output"
        self.app.mkdir(parents=True)
        for path in HERE.glob("*.py"):
            shutil.copyfile(path, self.app / path.name)
        shutil.copytree(bundle, self.models / "bundle")
        self.input.mkdir(parents=True)

    def run(self, *words: str) -> subprocess.CompletedProcess:
        """Run the application, and return its status and what it said."""
        told = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        told |= {
            "HOLOSCAN_INPUT_PATH": str(self.input),
            "HOLOSCAN_OUTPUT_PATH": str(self.output),
            "HOLOSCAN_MODEL_PATH": str(self.models),
            "HOLOSCAN_WORKDIR": str(self.input.parent),
        }
        return subprocess.run(
            [sys.executable, str(self.app / "app.py"), *words],
            cwd=self.input.parent,
            env=told,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def answer(self) -> Path:
        """The one file that is in the output folder.

        Raises:
            Failed: where there is another number of files.
        """
        files = [path for path in self.output.rglob("*") if path.is_file()]
        if len(files) != 1:
            raise Failed(f"{len(files)} files were written instead of one")
        return files[0]


def read_segmentation(path: Path, reference: nib.Nifti1Image, named: Mapping[int, Mapping]) -> np.ndarray:
    """The label that a DICOM SEG holds, laid on another grid by what its frames say of themselves.

    Args:
        path: of the DICOM SEG.
        reference: grid.
        named: ``dicom_segments`` of the bundle, by class; which class a segment is follows from its code.

    Raises:
        Failed: for segments of other codes, or frames elsewhere than on the grid.
    """
    held = pydicom.dcmread(path)
    values = {}
    for segment in held.SegmentSequence:
        code = segment.SegmentedPropertyTypeCodeSequence[0]
        region = (segment.get("AnatomicRegionSequence") or [None])[0]
        told = (code.CodeValue, code.CodingSchemeDesignator, region and region.CodeValue, segment.SegmentLabel)
        classes = [value for value, entry in named.items() if told == _told(entry)]
        if len(classes) != 1:
            raise Failed(f"the DICOM SEG has a segment {told} that the bundle's metadata does not name")
        values[int(segment.SegmentNumber)] = classes[0]
    shared = held.SharedFunctionalGroupsSequence[0]
    direction = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    rows, columns = (float(edge) for edge in shared.PixelMeasuresSequence[0].PixelSpacing)
    label = np.zeros(reference.shape[:3], np.uint8)
    to_voxel = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ reference.affine)
    frames = held.pixel_array.reshape(-1, held.Rows, held.Columns)
    for frame, groups in zip(frames, held.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        at = np.argwhere(frame.T)  # x, y
        places = corner + at[:, :1] * columns * direction[:3] + at[:, 1:] * rows * direction[3:]
        voxels = places @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        nearest = np.rint(voxels).astype(int)
        if at.size and np.abs(voxels - nearest).max() > 0.01:
            raise Failed("the frames of the DICOM SEG do not lie on the grid of the series")
        told = groups.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        label[tuple(nearest.T)] = values[int(told[0].ReferencedSegmentNumber)]
    return label


def _told(entry: Mapping) -> tuple:
    """What a segment says of itself by its entry in the metadata."""
    return (*entry["type"][:2], entry["region"][0] if entry.get("region") else None, entry["label"])


def check_silent(told: str, sources: Sequence[pydicom.Dataset], names: Sequence[str]) -> None:
    """See that nothing that names the patient or the study was told or is in a file's name.

    Raises:
        Failed: naming the attribute.
    """
    for one in sources:
        for element in one:
            value = str(element.value)
            if element.keyword in PATIENT or element.VR == "UI":
                for word in value.split("^") if element.VR == "PN" else [value]:
                    if len(word) > 3 and any(word in text for text in (told, *names)):
                        raise Failed(f"what was told or written holds the {element.keyword} of the series")


def certify(bundle: Path, work: Path, data: Path) -> tuple[str, dict[str, float]]:
    """Do all of it.

    Returns:
        the phrase that tells what was found, and figures.

    Raises:
        Failed: what did not hold.
    """
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    package, reference = Package(work / "package", bundle), work / "reference.nii.gz"
    packed = package.models / "bundle"
    named = {int(key): entry for key, entry in (metadata.get("dicom_segments") or {}).items()}
    sources: list[pydicom.Dataset] = []
    if named:
        sources = oblique_series(first_volume(data), package.input, metadata["expected_input"]["modality"][0])
        read_by_itk(package.input, reference)
    else:
        volume = first_volume(data)
        if not volume.name.endswith((".nii", ".nii.gz")):
            raise Failed("the data set holds no NIfTI volumes")
        shutil.copyfile(volume, package.input / volume.name)
        shutil.copyfile(volume, reference)
    weights, own = telling_answer(packed, reference, work / "own")
    begun = time.perf_counter()
    done = package.run()
    seconds = time.perf_counter() - begun
    print(done.stdout)
    if done.returncode:
        raise Failed(f"the application ended with {done.returncode}")
    path = package.answer()
    check_silent(done.stdout, sources, [path.name])
    expected = np.asarray(own.dataobj).astype(np.uint8)
    if named:
        given = read_segmentation(path, own, named)
        expected = np.where(np.isin(expected, sorted(named)), expected, 0)
    else:
        given = np.asarray(nib.load(path).dataobj)
        if not np.allclose(nib.load(path).affine, own.affine, atol=1e-4):
            raise Failed("the answer lies elsewhere than the volume")
    differ = int((given != expected).sum())
    found = int((expected != 0).sum())
    if differ:
        raise Failed(f"{differ} of {expected.size} voxels differ from the bundle's own answer")
    form = "DICOM SEG" if named else "NIfTI in and out (the bundle names no codes for DICOM)"
    figures = {"voxels": expected.size, "labelled": found, "different": differ, "seconds": round(seconds, 1)}
    return f"{form}: all {expected.size} voxels equal, {found} labelled, by {weights}", figures


def main() -> int:
    """Run from the command line; the status is 0 whatever the outcome, which RESULT tells."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for word in ("bundle", "work", "data"):
        parser.add_argument(f"--{word}", type=Path, required=True)
    given = parser.parse_args()
    try:
        told, figures = certify(given.bundle.resolve(), given.work.resolve(), given.data.resolve())
        result = {"passed": True, "told": told, "figures": figures}
    except Failed as failed:
        result = {"passed": False, "told": str(failed), "figures": {}}
    print("RESULT", json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
