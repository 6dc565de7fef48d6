"""Weights of LiTS, scored on 3D-IRCADb-01 by one command: it runs, and says that LiTS holds those scans."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from sandbox import Sandbox

pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'volseg[formats]'")

from dicom_series import slices, write  # noqa: E402

from common.data import phantom_dataset, training_cases  # noqa: E402
from common.data.decathlon import write_dataset, write_volume  # noqa: E402
from common.weights import read_info  # noqa: E402

pytestmark = pytest.mark.slow

LITS = ("liver_3", "liver_28", "liver_29")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Sandbox:
    """Three scans of LiTS; two of them, and one more, as the DICOM folders of 3D-IRCADb-01."""
    made = Sandbox.make(tmp_path_factory.mktemp("external") / "checkout")
    source = phantom_dataset("liver_ct", cases=4, size=(64, 56, 40), cache_dir=made.folder / "phantoms")
    volumes = [
        [np.asarray(nibabel.load(case[key]).dataobj).astype(np.int16) for key in ("image", "label")]
        for case in training_cases(source)
    ]
    lits = made.folder / "lits"
    for part in ("imagesTr", "labelsTr"):
        (lits / part).mkdir(parents=True)
    for name, (image, label) in zip(LITS, volumes, strict=False):
        write_volume(lits / "imagesTr" / f"{name}.nii.gz", image, (1, 1, 1))
        write_volume(lits / "labelsTr" / f"{name}.nii.gz", label.astype(np.uint8), (1, 1, 1))
    labels = {"0": "background", "1": "liver", "2": "tumour"}
    write_dataset(lits, {"name": "lits", "modality": {"0": "CT"}, "labels": labels}, LITS)
    for number, (image, label) in enumerate(volumes[1:], start=1):
        place = made.folder / "3Dircadb1" / f"3Dircadb1.{number}"
        stored = (image[:, ::-1] + 1024).clip(0).astype(np.uint16)
        write(place / "PATIENT_DICOM", slices(stored))
        for name, mask in (("liver", label > 0), ("livertumor01", label == 2)):
            write(place / "MASKS_DICOM" / name, slices(mask[:, ::-1].astype(np.uint8) * 255, rescale=None))
    return made


def test_scans_of_lits_are_known_again(sandbox):
    sandbox.run("volseg convert 3dircadb 3Dircadb1 --out ircadb")
    sandbox.run(
        "volseg train ra_unet_liver --dataset_dir lits --folds None --epochs 1 --localiser_epochs 0 --liver_epochs 0"
    )
    bundle = sandbox.folder / "bundles" / "ra_unet_liver"
    contents = read_info(bundle / "models" / "model.pt")["contents"]
    assert contents["lits"] == [3, 28, 29] and len(contents["scans"]) == 3 and contents["collection"] is None
    done = sandbox.run("volseg evaluate ra_unet_liver --dataset_dir ircadb --folds None")
    told = "2 of the 3 scans scored here are among the 3 that these weights were trained on"
    numbers = "2 of the LiTS cases 27 to 48 were trained on"
    said = done.stdout + done.stderr
    assert told in said and numbers in said
    out = bundle / "eval"
    assert told in (out / "lits.md").read_text()
    scores = json.loads((out / "metrics.json").read_text())
    assert told in scores["warning"] and numbers in scores["warning"] and not scores["failed"]
    assert {row["case"] for row in scores["cases"]} == {"3Dircadb1_1", "3Dircadb1_2", "3Dircadb1_3"}
