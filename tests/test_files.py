"""Finding a bundle, and writes that leave either the old file or the new one."""

from __future__ import annotations

import errno
import json
import os

import pytest

from common.checks import InputError, nearest, parse_flag, problem
from common.files import atomic_path, bundle_root, check_writable, read_json, sha256, write_json


def make_bundle(folder, name):
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps({"name": name}))
    return folder


def test_a_bundle_is_found_above_and_beside_the_working_directory(tmp_path, monkeypatch):
    root = make_bundle(tmp_path / "bundles" / "some_method", "some_method")
    for start in (root, root / "configs", tmp_path / "bundles", tmp_path):
        monkeypatch.chdir(start)
        assert bundle_root("some_method") == str(root.resolve())


def test_a_folder_of_that_name_without_metadata_is_not_the_bundle(tmp_path, monkeypatch):
    (tmp_path / "some_method").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{ broken")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="bundle 'some_method' was not found .*--bundle_root PATH"):
        bundle_root("some_method")


def test_an_aborted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["result.txt"]


def test_suffixes_stay_for_writers_that_choose_a_format_by_them(tmp_path):
    with atomic_path(tmp_path / "deep" / "image.nii.gz") as temporary:
        assert temporary.name.endswith(".image.nii.gz")
        temporary.touch()
    assert (tmp_path / "deep" / "image.nii.gz").is_file()


def test_a_full_disk_is_named(tmp_path):
    with (
        pytest.raises(InputError, match="writing '.*result.txt' failed .*free some space"),
        atomic_path(tmp_path / "result.txt"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "taken").touch()
    with (
        pytest.raises(InputError, match="'.*taken.result.txt' can not be written .*choose another folder"),
        atomic_path(tmp_path / "taken" / "result.txt"),
    ):
        pass


def test_a_folder_is_tried_before_work_is_spent(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "taken").touch()
    with pytest.raises(InputError, match="can not be written .*choose another folder"):
        check_writable(tmp_path / "taken" / "folder")


def test_json_round_trip_and_errors(tmp_path):
    write_json(tmp_path / "a.json", {"name": "µ"})
    assert read_json(tmp_path / "a.json") == {"name": "µ"}
    (tmp_path / "a.json").write_text('{"name": ')
    with pytest.raises(InputError, match="a.json' is not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="b.json' does not exist"):
        read_json(tmp_path / "b.json")


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("text, value", [("true", True), ("False", False), (1, True), ("0", False), ("None", False)])
def test_flags_arrive_as_text(text, value):
    assert parse_flag(text) is value


def test_a_text_that_is_no_flag_is_refused():
    with pytest.raises(InputError, match="resume is 'maybe': it must be true or false.*--resume true"):
        parse_flag("maybe", "resume")


def test_errors_have_three_parts():
    assert problem("A came.", "B is the rule", "do C.") == "A came: B is the rule. To mend it, do C."


def test_the_nearest_word_or_none():
    assert nearest("lerning_rate", ["learning_rate", "epochs"]) == "learning_rate"
    assert nearest("zzz", ["learning_rate"]) == ""
