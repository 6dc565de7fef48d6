"""What requests to MONAI Label must be like, and how its errors are told, without MONAI Label."""

from __future__ import annotations

import gzip
import io
import zipfile
from json import loads
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from label_uploads import write_slices, write_zip

GiB = 2**30

# requests


class LocalDatastore:
    def __init__(self, image: Path) -> None:
        self.image = image

    def list_images(self):
        return ["study"]

    def get_image_uri(self, name):
        return str(self.image)


@pytest.fixture
def rules(guard, tmp_path):
    """The rules before a pretended server of one model and one study."""
    network = torch.nn.Conv3d(1, 2, 3)
    (tmp_path / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / "models" / "model.pt")
    torch.save({"other": torch.zeros(2)}, tmp_path / "models" / "model_stage1.pt")
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.eye(4)), tmp_path / "study.nii.gz")
    task = SimpleNamespace(
        network=network, path=[str(tmp_path / "models" / "model.pt")], config=lambda: {"model_filename": ["model.pt"]}
    )
    instance = SimpleNamespace(
        _infers={"organs": task},
        _trainers={"organs": object()},
        datastore=lambda: LocalDatastore(tmp_path / "study.nii.gz"),
        sessions=lambda: SimpleNamespace(get_session=lambda name: {"known": 1}.get(name)),
    )
    return guard.rules.Rules(lambda: instance, GiB)


def ask(guard, rules, tmp_path, method, path, query="", params="", files=(), json=None):
    """A request through both rules; gives the body back."""
    rules.before_body(method, path, query)
    body = guard.body.Body(raw=b"as it came", json=json)
    if params:
        body.fields = [("params", params)]
    for number, (field, name, content) in enumerate(files):
        place = tmp_path / f"upload_{number}"
        place.write_bytes(content)
        body.files.append((field, name, place))
    folder = tmp_path / "request"
    folder.mkdir(exist_ok=True)
    rules.apply(method, path, query, body, folder)
    return body


VOLUME = gzip.compress(nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.eye(4)).to_bytes())


MHD = b"ObjectType = Image\nElementDataFile = sub/a.raw\n"


@pytest.mark.parametrize(
    ("status", "match", "request_"),
    [
        (404, "no model 'organ': it must be one of organs", ("POST", "/infer/organ", "image=study")),
        (404, "it must be one of organs", ("POST", "/train/organ")),
        (404, "it must be one of organs", ("POST", "/batch/infer/organ")),
        (404, "it must be one of organs", ("GET", "/model/info/organ")),
        (403, "random ones", ("DELETE", "/model/organs")),
        (400, "no image", ("POST", "/infer/organs")),
        (404, "no image 'other'", ("POST", "/infer/organs", "image=other")),
        (400, "image holds a path", ("POST", "/infer/organs", "image=/etc/passwd")),
        (400, "image holds a path", ("POST", "/infer/organs", "image=study", '{"image": "a/../b"}')),
        (400, "label_tag holds a path", ("POST", "/infer/organs", "image=study", '{"label_tag": "../../a"}')),
        (400, "session_id holds a path", ("POST", "/infer/organs", "session_id=..")),
        (404, "session is not there", ("POST", "/infer/organs", "session_id=unknown")),
        (400, "images holds a path", ("POST", "/batch/infer/organs", "", '{"images": ["a", "/etc/passwd"]}')),
        (400, "two models", ("POST", "/infer/organs", "image=study", '{"model": "other"}')),
        (400, "params is no JSON", ("POST", "/infer/organs", "image=study", "{")),
        (400, "model_filename holds a path", ("POST", "/infer/organs", "image=study", '{"model_filename": "../m.pt"}')),
        (404, "no weights 'm.pt'", ("POST", "/infer/organs", "image=study", '{"model_filename": "m.pt"}')),
        (422, "another network", ("POST", "/infer/organs", "image=study", '{"model_filename": "model_stage1.pt"}')),
        (422, "another ending", ("POST", "/infer/organs", "", "", [("file", "a.exe", b"MZ")])),
        (422, "not a whole one", ("POST", "/infer/organs", "", "", [("file", "a.nii.gz", b"MZ")])),
        (400, "no file", ("PUT", "/session/")),
        (400, "a session is one zip", ("PUT", "/session/", "", "", [("files", "a.zip", b"PK")])),
        (
            400,
            "a session is one zip",
            ("PUT", "/session/", "uncompress=1", "", [("files", "a", b"1"), ("files", "b", b"2")]),
        ),
        (422, "whole zip", ("PUT", "/session/", "uncompress=true", "", [("files", "a.tar", b"ustar")])),
        (422, "none an image", ("PUT", "/session/", "", "", [("files", "a", b"1"), ("files", "b", b"2")])),
        (400, "image holds a path", ("PUT", "/datastore/image", "image=../a", "", [("file", "a.nii.gz", VOLUME)])),
        (422, "another ending", ("PUT", "/datastore/image", "", "", [("file", "a.pkl", b"")])),
        (422, "voxels lie in another file.*one file", ("POST", "/infer/organs", "", "", [("file", "a.mhd", MHD)])),
        (422, "voxels lie in another file", ("PUT", "/datastore/image", "", "", [("file", "A.NHDR", b"NRRD0004")])),
        (404, "another model.*one of organs", ("POST", "/train/", "", '{"model": "other"}')),
        (422, "another network", ("PUT", "/model/organs", "", "", [("file", "model.pt", b"FOREIGN")])),
    ],
)
def test_requests_that_break_a_rule_are_refused(guard, refuses, rules, tmp_path, status, match, request_):
    if request_[1] == "/model/organs" and request_[0] == "PUT":
        stream = io.BytesIO()
        torch.save({"foreign": torch.zeros(1)}, stream)
        request_ = (*request_[:4], [("file", "model.pt", stream.getvalue())])
    with refuses(status, match):
        ask(guard, rules, tmp_path, *request_)


@pytest.mark.parametrize("path", ["/train/organs", "/train/", "/infer/organs", "/batch/infer/organs"])
@pytest.mark.parametrize(
    "value", ["$import os", " $1", "@network", "%a.json#b", ["$1"], {"_target_": "os.getcwd"}, {"a": [{"b": "$1"}]}]
)
def test_nothing_that_a_config_would_run_goes_on(guard, refuses, rules, tmp_path, path, value):
    for json in ({"max_epochs": value}, {"organs": {"max_epochs": value}}):
        with refuses(400, "run as code"):
            ask(guard, rules, tmp_path, "POST", path, "image=study", json=json)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"tracking_uri": "http://elsewhere:5000"}, "tracking_uri: it must be left out"),
        ({"tracking_uri": "file:///srv"}, "tracking_uri: it must be left out"),
        ({"tracking_uri": ["http://elsewhere:5000"]}, "tracking_uri: it must be left out"),
        ({"tracking": "/etc/settings.json"}, "tracking: it must be None, or mlflow"),
        ({"tracking": "mlflow.json"}, "tracking: it must be None, or mlflow"),
        ({"tracking": []}, "tracking: it must be None, or mlflow"),
        ({"tracking": ["settings.json", "None"]}, "tracking: it must be None, or mlflow"),
        ({"tracking_experiment_name": "a/b"}, "tracking_experiment_name: it must be a name"),
        ({"tracking_run_name": 5}, "tracking_run_name: it must be a name"),
        ({"run_id": "train#trainer"}, "run_id: it must be run"),
        ({"run_id": "train_stage1"}, "run_id: it must be run"),
        ({"run_id": None}, "run_id: it must be run"),
        ({"device": "../cpu"}, "device: it must be a device"),
        ({"max_epochs": "50"}, "max_epochs: it must be a number"),
        ({"max_epochs": 0}, "max_epochs: it must be a number"),
        ({"max_epochs": [1]}, "max_epochs: it must be a number"),
        ({"max_epochs": True}, "max_epochs: it must be a number"),
        ({"val_split": float("nan")}, "val_split: it must be a share"),
        ({"val_split": 1}, "val_split: it must be a share"),
        ({"pretrained": False}, "pretrained: it must be true"),
        ({"multi_gpu": "yes"}, "multi_gpu: it must be true or false"),
        ({"gpus": "0;1"}, "gpus: it must be all, or numbers"),
        ({"gpus": ""}, "gpus: it must be all, or numbers"),
        ({"gpus": None}, "gpus: it must be all, or numbers"),
        ({"dataset_dir": "/srv"}, "'dataset_dir': a request may set model_filename, .*leave it out"),
        ({"bundle_path": "/srv"}, "'bundle_path': a request may set"),
        ({"bundle_root": "elsewhere"}, "'bundle_root': a request may set"),
        ({"train#dataset": 1}, "'train#dataset': a request may set"),
    ],
)
def test_a_training_is_set_only_what_is_allowed(guard, refuses, rules, tmp_path, given, match):
    for path, json in (("/train/organs", given), ("/train/", given), ("/train", {"organs": given})):
        with refuses(400, match):
            ask(guard, rules, tmp_path, "POST", path, json=json)
    if "dataset_dir" not in given:
        with refuses(400, match):
            ask(guard, rules, tmp_path, "POST", "/train/organs", json={"organs": given})


def test_what_viewers_send_to_train_goes_on(guard, rules, tmp_path):
    """Slicer sends every parameter that /info/ offers; MONAI Label's client adds a name for itself."""
    offered = {
        "device": ["cpu"],
        "pretrained": True,
        "max_epochs": 50,
        "val_split": 0.2,
        "multi_gpu": True,
        "gpus": "all",
        "tracking": ["None", "mlflow"],
        "tracking_uri": "",
        "tracking_experiment_name": "",
        "run_id": "",
        "model_filename": ["model.pt"],
    }
    chosen = {"device": "NVIDIA H200:0", "tracking": "none", "model_filename": "model.pt", "tracking_uri": None}
    least = {"val_split": -1, "gpus": "0,1", "client_id": "user-xyz", "model": "organs", "force_multi_gpu": False}
    for json in (None, {}, offered, {**offered, **chosen}, least, {"max_epochs": 1, "val_split": 0}):
        for path in ("/train/organs", "/train/"):
            ask(guard, rules, tmp_path, "POST", path, json=json)
        ask(guard, rules, tmp_path, "POST", "/train/", json={"organs": json or {}})


@pytest.mark.parametrize("path", ["/train/organs", "/train/", "/train"])
def test_an_empty_run_id_does_not_reach_the_server(guard, rules, tmp_path, path):
    """Slicer sends what /info/ offers; to MONAI it is the whole config, so that stages would be trained twice."""
    for given, left in (
        ({"run_id": "", "max_epochs": 2}, {"max_epochs": 2}),
        ({"organs": {"run_id": "", "max_epochs": 2}, "run_id": ""}, {"organs": {"max_epochs": 2}}),
        ({"run_id": ""}, {}),
    ):
        body = ask(guard, rules, tmp_path, "POST", path, json=given)
        assert loads(body.raw) == body.json == left
    for given in ({"run_id": "run", "client_id": ""}, {"max_epochs": 2}, {}):  # all else goes on as it came
        body = ask(guard, rules, tmp_path, "POST", path, json=given)
        assert body.raw == b"as it came" and body.json == given


def test_tracking_is_told_to_be_absent_before_a_training_fails_of_it(guard, refuses, rules, tmp_path, monkeypatch):
    for there in (None, object()):
        monkeypatch.setattr(guard.training, "find_spec", {"mlflow": there}.__getitem__)
        for json in ({"tracking": "mlflow"}, {"tracking": ["mlflow", "None"]}):
            if there is None:
                with refuses(400, "mlflow where that is installed"):
                    ask(guard, rules, tmp_path, "POST", "/train/organs", json=json)
            else:
                ask(guard, rules, tmp_path, "POST", "/train/organs", json=json)


def test_parameters_are_one_object(guard, refuses, rules, tmp_path):
    for params in ("[]", '[["image", "/etc/passwd"]]', '"image"', "1"):
        with refuses(400, "no object"):
            ask(guard, rules, tmp_path, "POST", "/infer/organs", "image=study", params)
    body = guard.body.Body(fields=[("params", "{}"), ("params", '{"image": "/etc/passwd"}')])
    with refuses(400, "params twice"):
        rules.apply("POST", "/infer/organs", "image=study", body, tmp_path)
    with refuses(400, "model_filename holds a path"):
        ask(guard, rules, tmp_path, "POST", "/train/", json={"organs": {"model_filename": "../m.pt"}})


def test_a_batch_on_a_machine_without_a_gpu_is_told_what_to_send(guard, refuses, rules, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for json in (None, {"device": "cpu"}, {"multi_gpu": True}):
        with refuses(422, '"multi_gpu": false'):
            ask(guard, rules, tmp_path, "POST", "/batch/infer/organs", json=json)
    ask(guard, rules, tmp_path, "POST", "/batch/infer/organs", json={"multi_gpu": False})


def test_uploads_get_neutral_names(guard, rules, tmp_path):
    body = ask(guard, rules, tmp_path, "POST", "/infer/organs", files=[("file", "Doe^John.1970.nii.gz", VOLUME)])
    assert [(field, name) for field, name, _ in body.files] == [("file", "upload.nii.gz")]
    body = ask(guard, rules, tmp_path, "PUT", "/session/", files=[("files", "Doe.nii.gz", VOLUME)])
    assert [name for _, name, _ in body.files] == ["upload.nii.gz"]
    body = ask(guard, rules, tmp_path, "PUT", "/datastore/image", files=[("file", "../a.b.nii.gz", VOLUME)])
    assert [name for _, name, _ in body.files] == ["a_b.nii.gz"]  # a study is called as its file is


def test_a_zipped_series_is_handed_on_flat(guard, rules, tmp_path):
    paths = write_slices(tmp_path / "series")
    write_zip(tmp_path / "a.zip", {f"Doe/{path.name}": path.read_bytes() for path in paths})
    sent = [("files", "Doe.zip", (tmp_path / "a.zip").read_bytes())]
    body = ask(guard, rules, tmp_path, "PUT", "/session/", "uncompress=true", files=sent)
    assert [(field, name) for field, name, _ in body.files] == [("files", "series.zip")]
    with zipfile.ZipFile(body.files[0][2]) as opened:
        assert opened.read("000001.dcm") == (tmp_path / "series" / "5").read_bytes() and len(opened.namelist()) == 6


def test_a_label_has_the_grid_of_its_image(guard, refuses, rules, tmp_path):
    other = gzip.compress(nib.Nifti1Image(np.zeros((5, 6, 8), np.uint8), np.eye(4)).to_bytes())
    with refuses(422, "a label of 5x6x8 voxels for an image of 5x6x7"):
        ask(guard, rules, tmp_path, "PUT", "/datastore/label", "image=study", files=[("label", "a.nii.gz", other)])
    ask(guard, rules, tmp_path, "PUT", "/datastore/label", "image=study", files=[("label", "a.nii.gz", VOLUME)])


# errors of the server


def _raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


class InputError(ValueError):
    """As the bundles' own checks raise it, whatever their package is called."""


def test_an_error_of_a_bundle_is_told_in_its_parts(guard):
    inner = InputError("image 'a' holds 3 values that are NaN: every value must be finite. To mend it, replace them.")
    told = guard.refused.explained(_raised(RuntimeError("applying transform"), inner))
    assert told.status == 422 and told.parts["rule"] == "every value must be finite"
    assert str(told) == str(inner)


def test_another_error_tells_its_kind_and_nothing_of_the_server(guard):
    told = guard.refused.explained(_raised(RuntimeError("/srv/Doe.nii"), OSError("/srv/secret")))
    assert told.status == 500 and "RuntimeError after OSError" in str(told) and "srv" not in str(told)
