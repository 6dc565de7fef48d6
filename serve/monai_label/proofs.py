"""The single proofs of `certify.py`: each asks the running server something and compares the answer, or raises."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import samples
import SimpleITK
import torch
from monailabel.client import MONAILabelClient


def compare(proof, got: Path, wanted: Path, what: str) -> int:
    """Compare two label volumes: size, place and every voxel; returns how many voxels are labelled."""
    one, other = nib.load(got), nib.load(wanted)
    if one.shape != other.shape:
        raise AssertionError(f"{what}: {one.shape} voxels over HTTP, {other.shape} by monai.bundle run")
    apart = float(np.abs(one.affine - other.affine).max())
    if apart > 1e-3:
        raise AssertionError(f"{what}: the affines are {apart:.3g} mm apart")
    first, second = np.asarray(one.dataobj), np.asarray(other.dataobj)
    different = int((first != second).sum())
    if different:
        raise AssertionError(f"{what}: {different} of {first.size} voxels differ")
    proof.figures["answers_equal"] = proof.figures.get("answers_equal", 0) + 1
    proof.figures["voxels_equal"] = proof.figures.get("voxels_equal", 0) + int(first.size)
    return int((first != 0).sum())


def info(proof) -> str:
    """The server offers the bundle with its labels, for prediction and training."""
    told = proof.label.info()
    classes = next(iter(proof.metadata["network_data_format"]["outputs"].values()))["channel_def"]
    wanted = {name.lower(): int(number) for number, name in classes.items() if name.lower() != "background"}
    for name in (proof.name, proof.twin.name):
        if told["models"][name]["labels"] != wanted or name not in told["trainers"]:
            raise AssertionError(f"/info/ tells {told['models'][name]['labels']}, metadata {wanted}")
    return f"{len(wanted)} labels"


def studies(proof) -> str:
    """Studies by name, twice: the second answer comes from a loaded network."""
    labelled = 0
    for image in (*proof.images, proof.images[0]):
        began = time.perf_counter()
        got = proof.label.infer(proof.name, proof.work / "http.nii.gz", image=image.name.removesuffix(".nii.gz"))
        proof.figures["seconds_of_an_answer"] = round(time.perf_counter() - began, 2)
        labelled += compare(proof, got, proof.expected(proof.packed, image), image.name)
    proof.figures["voxels_labelled"] = labelled
    return f"{labelled} voxels labelled"


def upload(proof) -> str:
    """A volume that comes with the request, under a name that must not be told."""
    sent = proof.work / f"{samples.NAME.replace('^', ' ')}.{samples.IDENTITY}.nii.gz"
    sent.write_bytes(proof.images[1].read_bytes())
    got = proof.label.infer(proof.name, proof.work / "http.nii.gz", file=sent)
    compare(proof, got, proof.expected(proof.packed, proof.images[1]), "an upload")
    return "equal"


def two_bundles(proof) -> str:
    """The twin, and the first again: each answers by its own code."""
    image = proof.images[0]
    name = image.name.removesuffix(".nii.gz")
    got = {}
    for bundle in (proof.twin, proof.packed, proof.twin):
        path = proof.label.infer(bundle.name, proof.work / f"http_{bundle.name}.nii.gz", image=name)
        compare(proof, path, proof.expected(bundle, image), bundle.name)
        got[bundle.name] = np.asarray(nib.load(path).dataobj)
    apart = int((got[proof.name] != got[proof.twin.name]).sum())
    proof.figures["voxels_that_tell_the_twin"] = apart
    if not apart and proof.figures["voxels_labelled"]:
        raise AssertionError("the twin, whose code moves its answer, answers as the first does")
    return f"the twin's code shows in {apart} voxels"


def dicom(proof) -> str:
    """A zipped, oblique, reversed series; a bundle of several channels refuses it."""
    source = nib.load(proof.images[0])
    values = np.asarray(source.dataobj)
    several = values.ndim == 4
    values = values[..., 0] if several else values
    modality = "CT" if _input(proof).get("modality") == "CT" else "MR"
    if modality != "CT":
        values = values * (2000 / max(float(np.abs(values).max()), 1e-6))
    turn = np.eye(4)
    angle = np.deg2rad(12)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    made = samples.series(np.rint(values).astype(np.int16), turn @ source.affine, modality=modality)
    folder = proof.work / "series"
    folder.mkdir()
    files = {f"{samples.NAME}/{number:04d}": samples.encoded(one) for number, one in enumerate(reversed(made))}
    for name, content in files.items():
        (folder / Path(name).name).write_bytes(content)
    session = proof.label.session(samples.zipped(files))
    if several:
        refused = proof.label.send("POST", f"/infer/{proof.name}?session_id={session}&output=image")
        if refused.status_code != 422 or "channel" not in refused.text:
            raise AssertionError(f"one channel of several: {refused.status_code}, {refused.text[:300]}")
        return f"a series has one channel, which is refused: {refused.json()['rule']}"
    got = proof.label.infer(proof.name, proof.work / "http_dicom.nii.gz", session=session)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    # NRRD keeps the affine as it is; NIfTI rounds it to 32 bits, which moves where an untrained network's ties fall
    volume = proof.work / "series.nrrd"
    SimpleITK.WriteImage(reader.Execute(), str(volume))
    labelled = compare(proof, got, proof.expected(proof.packed, volume), "a DICOM series")
    proof.figures["voxels_labelled_dicom"] = labelled
    return f"{len(made)} slices, {labelled} voxels labelled"


def _input(proof) -> dict:
    return next(iter(proof.metadata["network_data_format"]["inputs"].values()))


def viewer(proof) -> str:
    """MONAI Label's own client, which 3D Slicer's extension uses: a volume of the user, its label, and a correction."""
    client = MONAILabelClient(proof.label.url, tmpdir=str(proof.work))
    image = proof.images[0]
    name = image.name.removesuffix(".nii.gz")
    session = client.create_session(str(image))["session_id"]
    params = {"result_extension": ".nii.gz", "result_dtype": "uint8"}
    for more in ({"image_id": name}, {"image_id": "of_a_user", "session_id": session}):
        got, _ = client.infer(proof.name, params=dict(params), **more)
        compare(proof, Path(got), proof.expected(proof.packed, image), "a viewer's")
    client.remove_session(session)
    client.save_label(name, got, tag="corrected", params={"label_info": []})
    compare(proof, proof.studies / "labels" / "corrected" / image.name, Path(got), "a label sent back")
    return "equal by name and by session, and stored"


def batch(proof) -> str:
    """All studies in the background; the labels are left beside them."""
    task = proof.label.batch(proof.name, save_label=True, label_tag="original")
    if task["status"] != "DONE":
        raise AssertionError(f"batch inference ended as {task['status']}: {task.get('details')}")
    for image in proof.images:
        got = proof.studies / "labels" / "original" / image.name
        compare(proof, got, proof.expected(proof.packed, image), f"{image.name} of the batch")
    return f"{len(proof.images)} studies"


def bad_input(proof) -> str:
    """Requests that no server should stumble over; after each, nothing is left and the server answers."""
    store = {path.name for path in proof.studies.iterdir()}
    model, count = f"/infer/{proof.name}", 0
    study = proof.images[0].name.removesuffix(".nii.gz")
    foreign = io.BytesIO()
    torch.save({"foreign": torch.zeros(3)}, foreign)
    whole = samples.nifti(np.zeros((5, 6, 7), np.uint8))
    requests = [
        ("an unknown model", "POST", "/infer/nobody?image=x&output=image", {}),
        ("an unknown model to train", "POST", "/train/nobody", {"json": {}}),
        ("an unknown model for a batch", "POST", "/batch/infer/nobody", {"json": {}}),
        ("tracking elsewhere", "POST", f"/train/{proof.name}", {"json": {"tracking_uri": "http://elsewhere:5000"}}),
        ("a file of tracking", "POST", f"/train/{proof.name}", {"json": {"tracking": "/etc/hostname"}}),
        ("data elsewhere", "POST", "/train/", {"json": {proof.name: {"dataset_dir": "/etc"}}}),
        ("an unknown study", "POST", f"{model}?image=nobody&output=image", {}),
        ("a path as study", "POST", f"{model}?image=/etc/hostname&output=image", {}),
        ("a path in params", "POST", f"{model}?image=x", {"data": {"params": '{"image": "/etc/hostname"}'}}),
        ("params that are no JSON", "POST", f"{model}?image={study}", {"data": {"params": "{"}}),
        ("weights elsewhere", "POST", f"{model}?image={study}", {"data": {"params": '{"model_filename": "../x.pt"}'}}),
        ("no image", "POST", model, {}),
        ("an unknown session", "POST", f"{model}?session_id=nobody", {}),
        (
            "a study that leaves its folder",
            "PUT",
            "/datastore/image?image=../out",
            {"files": {"file": ("a.nii.gz", whole)}},
        ),
        (
            "a label of another size",
            "PUT",
            f"/datastore/label?image={study}",
            {"files": {"label": ("a.nii.gz", whole)}},
        ),
        ("foreign weights", "PUT", f"/model/{proof.name}", {"files": {"file": ("model.pt", foreign.getvalue())}}),
        ("another host's name", "GET", "/info/", {"headers": {"Host": "elsewhere.example"}}),
        ("a web page from elsewhere", "GET", "/info/", {"headers": {"Origin": "http://elsewhere.example"}}),
    ]
    for what, file in samples.volumes().items():
        requests.append((what, "POST", f"{model}?output=image", {"files": {"file": file}}))
    for what, file in samples.archives().items():
        requests.append((what, "PUT", "/session/?uncompress=true", {"files": {"files": file}}))
    for what, method, path, more in requests:
        before = _private(proof)
        answer = proof.label.send(method, path, **more)
        told = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
        if not 400 <= answer.status_code < 500 or not {"detail", "came", "rule", "remedy"} <= told.keys():
            raise AssertionError(f"{what} is answered with {answer.status_code}: {answer.text[:300]}")
        if left := _private(proof) - before:
            raise AssertionError(f"{what} leaves {sorted(left)[:3]}")
        proof.label.info()
        count += 1
    if {path.name for path in proof.studies.iterdir()} != store:
        raise AssertionError("the studies have changed")
    proof.figures["bad_requests_refused"] = count
    return f"{count} refused"


def _private(proof) -> set[str]:
    return {str(path.relative_to(proof.private)) for path in proof.private.rglob("*")}


def training(proof) -> str:
    """A short training in the background; the next answer is that of the new weights."""
    config = proof.served / "configs" / "train.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    if isinstance(content.get("iterations_per_epoch"), int):  # an epoch of 100 would prove no more
        config.write_text(json.dumps({**content, "iterations_per_epoch": 2}), encoding="utf-8")
    weights = proof.served / "models" / "model.pt"
    before = weights.read_bytes()
    began = time.perf_counter()
    # as 3D Slicer sends it; to MONAI an empty run_id would be every list of the config, one stage after another
    task = proof.label.train(proof.name, max_epochs=1, val_split=0.5, device="cpu", run_id="")
    proof.figures["seconds_of_training"] = round(time.perf_counter() - began, 1)
    if task["status"] != "DONE":
        raise AssertionError(f"training ended as {task['status']}: {task.get('details')}")
    if task["request"].get("run_id", "run") != "run":
        raise AssertionError(f"a training of run_id {task['request']['run_id']!r} was started")
    log = (proof.work / "server.log").read_text(errors="replace")
    begun = re.findall(r"stage '(\w+)', epoch 1 of ", log)
    if len(set(begun)) < len(begun):
        raise AssertionError(f"stages were trained more than once: {begun}")
    if weights.read_bytes() == before:
        raise AssertionError("training left the weights as they were")
    image = proof.images[0]
    got = proof.label.infer(proof.name, proof.work / "http.nii.gz", image=image.name.removesuffix(".nii.gz"))
    compare(proof, got, proof.expected(proof.served, image), "after training")
    return f"{proof.figures['seconds_of_training']} s"


def nothing_told(proof) -> str:
    """The server's log names no patient."""
    log = (proof.work / "server.log").read_text(errors="replace")
    for secret in (samples.NAME, samples.NAME.replace("^", " "), samples.IDENTITY):
        if secret in log:
            raise AssertionError(f"the log tells {secret!r}")
    return f"{len(log.splitlines())} lines of log"
