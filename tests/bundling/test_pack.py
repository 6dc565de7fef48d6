"""Packing, on a tiny bundle with a tiny package."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
import zipfile

import pytest
import torch

from common.bundling.pack import pack
from common.bundling.recipe import bake, format_json, stage_names
from common.checks import InputError, WeightsError
from common.files import read_json, sha256
from common.weights import read_info, save_weights

pack_module = importlib.import_module("common.bundling.pack")  # by `from`, a re-exported function would come


@pytest.fixture(autouse=True)
def no_findings(monkeypatch):
    """The tiny bundle is far from what the lint demands; that findings stop a pack has a test of its own."""
    monkeypatch.setattr(pack_module, "lint", lambda bundle_dir, quick: [])


@pytest.fixture
def trained(tiny_bundle, tiny_package):
    """The tiny bundle with weights of its default width."""
    network = importlib.import_module(f"{tiny_package.name}.nets").Net(channels=2)
    save_weights(network, tiny_bundle / "models" / "model.pt", {"dataset": "toy", "phantom": True})
    return tiny_bundle


def packed(bundle, package, out, **options):
    return pack(bundle, out, package=package.name, **options)


def test_pack_holds_the_bundle_and_nothing_of_its_runs(trained, tiny_package, tmp_path):
    folder, archive = packed(trained, tiny_package, tmp_path / "out")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == [
        "LICENSE",
        "PACKED.json",
        "configs/inference.json",
        "configs/logging.conf",
        "configs/metadata.json",
        "configs/narrow.json",
        "configs/train.json",
        "docs/README.md",
        "models/model.json",
        "models/model.pt",
        "models/model_head.json",
        "models/model_head.pt",
        "scripts_toy/__init__.py",
        "scripts_toy/checks.py",
        "scripts_toy/nets/__init__.py",
        "scripts_toy/nets/late.py",
        "scripts_toy/nets/net.py",
        "scripts_toy/nets/table.csv",
        "scripts_toy/tools/__init__.py",
        "scripts_toy/tools/deep.py",
        "scripts_toy/tools/table.json",
    ]
    assert (folder, archive) == (tmp_path / "out" / "toy", tmp_path / "out" / "toy.zip")
    assert zipfile.ZipFile(archive).namelist() == sorted(f"toy/{name}" for name in names)
    assert list((tmp_path / "out").iterdir()) in ([folder, archive], [archive, folder])


def test_targets_name_the_defining_module_of_the_carried_code(trained, tiny_package, tmp_path):
    folder, _ = packed(trained, tiny_package, tmp_path / "out")
    for name in ("train.json", "inference.json"):
        assert read_json(folder / "configs" / name)["network_def"]["_target_"] == "scripts_toy.nets.net.Net"
    assert tiny_package.name not in "".join(path.read_text() for path in (folder / "configs").iterdir())


def test_same_input_gives_the_same_bytes(trained, tiny_package, tmp_path):
    first = packed(trained, tiny_package, tmp_path / "a")[1].read_bytes()
    (trained / "LICENSE").touch()
    (trained / "LICENSE").chmod(0o600)
    assert packed(trained, tiny_package, tmp_path / "b")[1].read_bytes() == first
    assert packed(trained, tiny_package, tmp_path / "b")[1].read_bytes() == first


def test_manifest_lists_every_file_with_its_hash(trained, tiny_package, tmp_path):
    folder, archive = packed(trained, tiny_package, tmp_path / "out")
    manifest = read_json(folder / "PACKED.json")
    with zipfile.ZipFile(archive) as content:
        for name, digest in manifest["files"].items():
            assert hashlib.sha256(content.read(f"toy/{name}")).hexdigest() == digest
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"PACKED.json"}
    assert set(manifest["files"]) == files
    assert all(sha256(folder / name) == digest for name, digest in manifest["files"].items())
    source = hashlib.sha256((tiny_package / "nets/net.py").read_bytes()).hexdigest()
    assert manifest["files"]["scripts_toy/nets/net.py"] == source
    assert (manifest["bundle"], manifest["version"]) == ("toy", "0.3.0")
    assert manifest["packed_by"].startswith("volseg ")


def test_each_stage_has_weights_of_its_own_with_a_sidecar(trained, tiny_package, tmp_path):
    folder, _ = packed(trained, tiny_package, tmp_path / "out")
    whole = torch.load(folder / "models/model.pt", weights_only=True)
    child = torch.load(folder / "models/model_head.pt", weights_only=True)
    assert set(child) == {"weight", "bias"} and torch.equal(child["weight"], whole["head.weight"])
    info = read_info(folder / "models/model_head.pt")
    assert info["stage"] == "head" and info["phantom"] is True
    assert min((path.name for path in (folder / "models").glob("*.pt")), key=len) == "model.pt"


def test_stage_names_are_those_of_stage_trainers_in_order():
    trainer = {"_target_": "common.engines.StageTrainer"}
    config = {
        "name": "third",
        "a": {"trainer": {**trainer, "stage": "first"}},
        "b": [{**trainer, "stage": "second"}, {**trainer, "stage": None}, trainer, {"_target_": "X", "stage": "no"}],
        "c": {**trainer, "stage": "@name"},
    }
    assert stage_names(config) == ["first", "second", "third"]


def test_a_stage_that_is_no_child_is_refused(trained, tiny_package, tmp_path):
    text = (trained / "configs/train.json").read_text().replace('"head"', '"body"')
    (trained / "configs/train.json").write_text(text)
    with pytest.raises(WeightsError, match="holds nothing of stage 'body'"):
        packed(trained, tiny_package, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_without_weights_it_refuses_unless_told(tiny_bundle, tiny_package, tmp_path):
    with pytest.raises(WeightsError, match=r"model.pt' does not exist: a packed bundle carries .*--without-weights"):
        packed(tiny_bundle, tiny_package, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    folder, _ = packed(tiny_bundle, tiny_package, tmp_path / "out", without_weights=True)
    assert not (folder / "models").exists() and read_json(folder / "PACKED.json")["weights"] is None


def test_weights_of_another_width_are_refused_with_the_remedy(trained, tiny_package, tmp_path):
    said = r"of another network .*head.weight \(2, .*instead of \(1, .*pack with it \(--overlays small\)"
    with pytest.raises(WeightsError, match=said):
        packed(trained, tiny_package, tmp_path / "out", overlays=["narrow"])


def test_overlay_is_baked_where_each_id_belongs_and_metadata_follows(tiny_bundle, tiny_package, tmp_path):
    network = importlib.import_module(f"{tiny_package.name}.nets").Net(channels=1)
    save_weights(network, tiny_bundle / "models" / "model.pt", {})
    overlay = {"channels": 1, "patch_size": [8, 8, 8], "train::size": 5}
    (tiny_bundle / "configs/narrow.json").write_text(json.dumps({**overlay, "train::trainer::stage": None}))
    folder, _ = packed(tiny_bundle, tiny_package, tmp_path / "out", overlays=["narrow"])
    inference, train = (read_json(folder / "configs" / f"{name}.json") for name in ("inference", "train"))
    assert (inference["channels"], inference["patch_size"], train["channels"]) == (1, [8, 8, 8], 1)
    assert train["train"]["size"] == 5 and train["rate"] == 0.1
    assert "patch_size" not in train and "train" not in inference
    form = read_json(folder / "configs/metadata.json")["network_data_format"]
    assert form["inputs"]["image"]["spatial_shape"] == form["outputs"]["pred"]["spatial_shape"] == [8, 8, 8]
    assert read_json(folder / "PACKED.json")["overlays"] == ["narrow"]


@pytest.mark.parametrize(
    "overlay, said",
    [
        ({"chanels": 1}, "configs/over.json sets 'chanels': an overlay sets ids that train.json or inference.json has"),
        (None, "there is no overlay configs/over.json: the bundle has small.json.*--overlays"),
    ],
)
def test_bad_overlay_is_named(overlay, said):
    configs = {"train.json": {"channels": 2}, "inference.json": {"channels": 2}, "metadata.json": {}, "small.json": {}}
    with pytest.raises(InputError, match=said):
        bake({**configs, **({"over.json": overlay} if overlay else {})}, ["over"])


def test_merging_overlay_adds_to_lists_and_leaves_the_source_alone():
    configs = {"train.json": {"classes": [1]}, "inference.json": {}, "more.json": {"+classes": [2]}}
    assert bake(configs, ["more.json"])["train.json"] == {"classes": [1, 2]}
    assert configs["train.json"] == {"classes": [1]}


@pytest.mark.parametrize("phantom", [True, False])
def test_description_says_when_weights_are_of_phantoms(tiny_bundle, tiny_package, tmp_path, phantom):
    network = importlib.import_module(f"{tiny_package.name}.nets").Net(channels=2)
    save_weights(network, tiny_bundle / "models" / "model.pt", {"phantom": phantom})
    folder, _ = packed(tiny_bundle, tiny_package, tmp_path / "out")
    description = read_json(folder / "configs/metadata.json").get("description", "")
    assert ("TRAINED ON SYNTHETIC PHANTOMS" in description) is phantom


def test_lint_findings_stop_it(trained, tiny_package, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_module, "lint", lambda bundle_dir, quick: ["metadata.json: no version", "no LICENSE"])
    with pytest.raises(InputError, match="2 findings about toy, first: metadata.json: no version.*volseg lint toy"):
        packed(trained, tiny_package, tmp_path / "out")


@pytest.mark.parametrize("expression", ["$import {package}.nets", "${package}.nets.Net()"])
def test_code_reached_by_an_expression_is_refused(trained, tiny_package, tmp_path, expression):
    config = {**read_json(trained / "configs/train.json"), "x": [expression.format(package=tiny_package.name)]}
    (trained / "configs/train.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"configs/train.json reaches the package in .*reached only by a \"_target_\""):
        packed(trained, tiny_package, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_config_that_is_no_json_can_not_name_code(trained, tiny_package, tmp_path):
    (trained / "configs/extra.yaml").write_text(f"net:\n  _target_: {tiny_package.name}.nets.Net\n")
    with pytest.raises(InputError, match="configs/extra.yaml reaches the package in 'tiny.*nets.Net'"):
        packed(trained, tiny_package, tmp_path / "out")


def test_an_untouched_earlier_pack_is_replaced(trained, tiny_package, tmp_path):
    folder, archive = packed(trained, tiny_package, tmp_path / "out")
    (trained / "LICENSE").write_text("changed\n")
    cache = folder / "scripts_toy" / "__pycache__"
    cache.mkdir()
    (cache / "x.pyc").write_text("left by running it")
    packed(trained, tiny_package, tmp_path / "out")
    assert (folder / "LICENSE").read_text() == "changed\n"
    assert zipfile.ZipFile(archive).read("toy/LICENSE") == b"changed\n"


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda out: (out / "toy").mkdir(parents=True), "toy' is there and is not a packed bundle"),
        (lambda out: (out / "toy").symlink_to("/nowhere"), "toy' is there and is not a packed bundle"),
        (lambda out: (out / "toy.zip").write_text("mine"), "toy.zip' is there and is not the archive of a packed"),
    ],
)
def test_what_is_no_pack_is_not_overwritten(trained, tiny_package, tmp_path, spoil, said):
    (tmp_path / "out").mkdir()
    spoil(tmp_path / "out")
    with pytest.raises(InputError, match=said):
        packed(trained, tiny_package, tmp_path / "out")


@pytest.mark.parametrize("name", ["eval/case_seg.nii.gz", "models/model.pt", "configs/train.json"])
def test_what_was_added_to_or_changed_in_a_pack_is_not_lost(trained, tiny_package, tmp_path, name):
    folder, _ = packed(trained, tiny_package, tmp_path / "out")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("work of an afternoon")
    with pytest.raises(InputError, match=f"holds '{name}', added or changed since it was packed"):
        packed(trained, tiny_package, tmp_path / "out")
    assert (folder / name).read_text() == "work of an afternoon"


def test_a_failure_midway_leaves_the_earlier_pack(trained, tiny_package, tmp_path, monkeypatch):
    folder, archive = packed(trained, tiny_package, tmp_path / "out")
    before = archive.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack_module, "write_zip", full)
    (trained / "LICENSE").write_text("changed\n")
    with pytest.raises(InputError, match="failed .No space left on device.*what was there before is untouched"):
        packed(trained, tiny_package, tmp_path / "out")
    assert archive.read_bytes() == before and (folder / "LICENSE").read_text() == "free\n"
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_pack_or_a_folder_that_is_no_bundle_is_not_packed(trained, tiny_package, tmp_path):
    folder, _ = packed(trained, tiny_package, tmp_path / "out")
    with pytest.raises(InputError, match="is packed already"):
        packed(folder, tiny_package, tmp_path / "again")
    with pytest.raises(InputError, match="is no bundle: it must hold configs/metadata.json"):
        packed(tmp_path, tiny_package, tmp_path / "again")


def test_packed_network_runs_without_its_package_beside_another_bundle(trained, tiny_package, tmp_path):
    first, _ = packed(trained, tiny_package, tmp_path / "out")
    source = (tiny_package / "nets/late.py").read_text()
    (tiny_package / "nets/late.py").write_text(source.replace("late", "changed"))
    metadata = read_json(trained / "configs/metadata.json")
    (trained / "configs/metadata.json").write_text(json.dumps({**metadata, "name": "toy2"}))
    second, _ = packed(trained, tiny_package, tmp_path / "out")
    code = (
        "import sys\nfrom monai.bundle import ConfigParser\n"
        f"for root in ({str(first)!r}, {str(second)!r}):\n"
        "    sys.path.insert(0, root)\n"
        "    parser = ConfigParser()\n    parser.read_config(root + '/configs/inference.json')\n"
        "    print(parser.get_parsed_content('network_def').marker())\n    sys.path.remove(root)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "out", env={}, capture_output=True, text=True)
    assert ran.stdout.split() == ["insiderulelate1.2", "insiderulechanged1.2"], ran.stderr


def test_json_keeps_short_things_on_a_line_and_content_as_it_was():
    content = {"size": [1, 2, 3], "part": {"_target_": "A", "keys": "image"}, "list": [{"a": {"b": 1}}]}
    content["long"] = ["x" * 60] * 3
    text = format_json(content)
    assert json.loads(text) == content
    assert '    "size": [1, 2, 3],\n' in text and '    "part": {"_target_": "A", "keys": "image"},\n' in text
    assert max(map(len, text.splitlines())) <= 120
