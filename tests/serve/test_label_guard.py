"""What stands before MONAI Label, without MONAI Label: zips, series, volumes, weights, requests."""

from __future__ import annotations

import gzip
import importlib
import io
import stat
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_series import encoded, slices
from pydicom.encaps import encapsulate

GiB = 2**30


@pytest.fixture(scope="module")
def guard(repository: Path):
    """The guard's modules, as the server's process finds them."""
    pytest.importorskip("pydicom")
    pytest.importorskip("nrrd")
    folder = str(repository / "serve" / "monai_label")
    sys.path.insert(0, folder)
    try:
        names = ("archives", "body", "refused", "rules", "series", "volumes", "weights")
        yield SimpleNamespace(**{name: importlib.import_module(f"guard.{name}") for name in names})
    finally:
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.split(".")[0] == "guard"]:
            del sys.modules[name]


@pytest.fixture
def refuses(guard):
    """Expect a refusal: its status and a part of its text."""

    @contextmanager
    def expect(status: int, match: str):
        with pytest.raises(guard.refused.Refused, match=match) as caught:
            yield
        assert caught.value.status == status and all(caught.value.parts.values())

    return expect


# zips


def write_zip(path: Path, files: dict[str, bytes], change=None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            if change is not None:
                change(entry)
            archive.writestr(entry, content)
    return path


def test_a_zip_is_unpacked_under_neutral_names(guard, tmp_path):
    files = {"Doe/a.dcm": b"one", "Doe/": b"", "__MACOSX/Doe/a.dcm": b"fork", "Doe/b/c.dcm": b"two"}
    made = guard.archives.unpack(write_zip(tmp_path / "a.zip", files), _folder(tmp_path), GiB)
    assert [path.name for path in made] == ["000000", "000001"]
    assert [path.read_bytes() for path in made] == [b"one", b"two"]


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "C:/out", "..\\out", "\\\\host\\out"])
def test_a_name_that_leaves_the_folder_is_refused_before_anything_is_written(guard, refuses, tmp_path, name):
    archive, folder = write_zip(tmp_path / "a.zip", {"good": b"1", name: b"2"}), _folder(tmp_path)
    with refuses(422, "leaves its folder"):
        guard.archives.unpack(archive, folder, GiB)
    assert not list(folder.iterdir())


def test_links_and_locked_entries_are_refused(guard, refuses, tmp_path):
    def linked(entry):
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16

    with refuses(422, "holds a link"):
        guard.archives.unpack(write_zip(tmp_path / "a.zip", {"a": b"/etc/passwd"}, linked), _folder(tmp_path), GiB)
    locked = bytearray(write_zip(tmp_path / "b.zip", {"a": b"secret"}).read_bytes())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1  # the flag in the list of contents
    (tmp_path / "b.zip").write_bytes(locked)
    with refuses(422, "encrypted"):
        guard.archives.unpack(tmp_path / "b.zip", tmp_path / "folder", GiB)


def test_a_zip_that_unpacks_to_too_much_is_refused(guard, refuses, tmp_path):
    with refuses(422, "times its size"):
        guard.archives.unpack(write_zip(tmp_path / "a.zip", {"a": bytes(4 << 20)}), _folder(tmp_path), GiB)
    noise = np.random.default_rng(0).bytes(3000)
    with refuses(413, "2 files of 0.00 GiB"):
        guard.archives.unpack(write_zip(tmp_path / "b.zip", {"a": noise, "b": noise}), tmp_path / "folder", 5999)
    assert len(guard.archives.unpack(tmp_path / "b.zip", tmp_path / "folder", 6000)) == 2


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing", b"ustar  "])
def test_what_is_no_zip_is_refused(guard, refuses, tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    with refuses(422, "whole zip"):
        guard.archives.unpack(tmp_path / "a.zip", _folder(tmp_path), GiB)


def test_a_damaged_entry_is_refused(guard, refuses, tmp_path):
    content = np.random.default_rng(0).bytes(4000)
    path = write_zip(tmp_path / "a.zip", {"a": content})
    broken = bytearray(path.read_bytes())
    broken[200:220] = bytes(20)
    path.write_bytes(broken)
    with refuses(422, "can not be read"):
        guard.archives.unpack(path, _folder(tmp_path), GiB)


def test_a_series_is_packed_flat_and_in_order(guard, tmp_path):
    for name in ("z", "a"):
        (tmp_path / name).write_bytes(name.encode())
    packed = guard.archives.pack([tmp_path / "z", tmp_path / "a"], tmp_path / "out.zip")
    with zipfile.ZipFile(packed) as opened:
        assert opened.namelist() == ["000000.dcm", "000001.dcm"] and opened.read("000000.dcm") == b"z"


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


# series


def write_slices(folder: Path, change=None, **more) -> list[Path]:
    """A CT series whose files are not in the order of its slices."""

    def whole(one, number):
        one.Modality, one.SeriesInstanceUID = "CT", "1.2.3"
        if change is not None:
            change(one, number)

    made = slices(np.arange(9 * 8 * 6, dtype=np.uint16).reshape(9, 8, 6), change=whole, **more)
    folder.mkdir(exist_ok=True)
    for number, one in made.items():
        (folder / f"{(number * 5) % 6}").write_bytes(encoded(one))
    return sorted(folder.iterdir())


OBLIQUE = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)


@pytest.mark.parametrize("directions", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), OBLIQUE])
def test_a_series_is_ordered_along_its_normal(guard, tmp_path, directions):
    paths = write_slices(tmp_path / "series", directions=directions)
    (tmp_path / "series" / "notes.txt").write_text("no DICOM")
    found = guard.series.check([*paths, tmp_path / "series" / "notes.txt"])
    assert [int(path.name) for path in found] == [(number * 5) % 6 for number in range(6)]


def _set(**values):
    def change(one, number):
        for name, value in values.items():
            setattr(one, name, value)

    return change


def _at(number: int, change):
    return lambda one, place: change(one, place) if place == number else None


def _shrink(one, number):
    one.Rows, one.PixelData = 4, bytes(9 * 4 * 2)


def _move(one, number):
    one.ImagePositionPatient = [*one.ImagePositionPatient[:2], float(one.ImagePositionPatient[2]) + 2.5]


def _video(one, number):
    one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    one.PixelData = encapsulate([b"\0\0\1\xb3 no picture "])


def _drop(*names):
    def change(one, number):
        for name in names:
            delattr(one, name)

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_drop("PixelData"), "without pixel data"),
        (_at(2, _set(PixelData=bytes(40))), "cut short.*has 144 bytes"),
        (_at(2, _shrink), r"slices of .*9x8 \(5\).*all slices of a series have one size"),
        (_video, "MPEG2"),
        (_set(NumberOfFrames=3), "multi-frame"),
        (_set(SamplesPerPixel=3), "colour"),
        (_drop("RescaleSlope"), "CT is in HU"),
        (_at(3, _set(SeriesInstanceUID="1.2.4")), "2 series of [15], [15] slices"),
        (_at(3, _drop("ImagePositionPatient")), "without ImagePositionPatient"),
        (_at(3, _set(ImageOrientationPatient=[0, 1, 0, 0, 0, 1])), "several orientations"),
        (_at(3, _move), "two slices in one place"),
        (_at(5, _move), "evenly spaced"),
        (_set(Modality="SEG"), "none an image"),
    ],
)
def test_a_series_that_makes_no_volume_is_refused(guard, refuses, tmp_path, change, match):
    with refuses(422, match):
        guard.series.check(write_slices(tmp_path / "series", change))


def test_a_missing_slice_and_a_tilted_gantry_are_refused(guard, refuses, tmp_path):
    paths = write_slices(tmp_path / "series")
    with refuses(422, "2.50 to 5.00 mm apart"):
        guard.series.check([path for path in paths if path.name != "3"])
    with refuses(422, "gantry tilt"):
        guard.series.check(write_slices(tmp_path / "tilted", shear=(0.0, 0.4)))


def test_no_patient_is_named(guard, tmp_path):
    paths = write_slices(tmp_path / "series", _at(2, _shrink))
    with pytest.raises(guard.refused.Refused) as caught:
        guard.series.check(paths)
    assert b"Nobody" not in caught.value.body() and b"1.2.3" not in caught.value.body()


# volumes


def test_whole_volumes_pass(guard, tmp_path):
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.eye(4))
    for name in ("a.nii.gz", "a.nii"):
        nib.save(image, tmp_path / name)
        assert guard.volumes.check(tmp_path / name, GiB) == (5, 6, 7)
    nrrd = pytest.importorskip("nrrd")
    nrrd.write(str(tmp_path / "a.nrrd"), np.zeros((5, 6, 7), np.int16))
    assert guard.volumes.check(tmp_path / "a.nrrd", GiB) == (5, 6, 7)


def test_volumes_that_are_none_are_refused(guard, refuses, tmp_path):
    whole = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(5, 6, 7), np.eye(4)).to_bytes()
    contents = [b"", b"noise" * 99, gzip.compress(whole)[:-40], gzip.compress(whole[:-40]), gzip.compress(whole[:100])]
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.nii.gz"
        path.write_bytes(content)
        with refuses(422, "no .nii.gz volume, or not a whole one"):
            guard.volumes.check(path, GiB)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(whole))
    with refuses(413, r"\(5, 6, 7\)"):
        guard.volumes.check(tmp_path / "a.nii.gz", 500)


def test_an_nrrd_that_points_elsewhere_is_refused(guard, refuses, tmp_path):
    path = tmp_path / "a.nrrd"
    path.write_text("NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: /etc/passwd\n\n")
    with refuses(422, "points to another file"):
        guard.volumes.check(path, GiB)


# weights


def test_weights_of_another_network_are_refused(guard, refuses, tmp_path):
    network, path = torch.nn.Conv3d(1, 2, 3), tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    guard.weights.check(path, network)
    with refuses(422, "another network's: 2 of 2 tensors differ"):
        guard.weights.check(path, torch.nn.Conv3d(1, 3, 3))
    torch.save({**network.state_dict(), "more": torch.zeros(1)}, path)
    with refuses(422, "another network's: 1 of 2"):
        guard.weights.check(path, network)
    torch.save({"weight": _Pickled()}, path)
    with refuses(422, "plain state dict"):
        guard.weights.check(path, network)
    path.write_bytes(b"no weights")
    with refuses(422, "plain state dict"):
        guard.weights.check(path, network)


class _Pickled:
    """An object that only a pickle holds."""


# requests


class _Store:
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
        datastore=lambda: _Store(tmp_path / "study.nii.gz"),
        sessions=lambda: SimpleNamespace(get_session=lambda name: {"known": 1}.get(name)),
    )
    return guard.rules.Rules(lambda: instance, GiB)


def ask(guard, rules, tmp_path, method, path, query="", params="", files=(), json=None):
    """A request through both rules; gives the body back."""
    rules.before_body(method, path, query)
    body = guard.body.Body(json=json)
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
