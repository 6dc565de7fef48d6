"""Ids of a config agree with MONAI's own reading, and an override that answers to none is refused with the nearest."""

import copy
import json
import subprocess
import sys

import pytest
from monai.bundle import ConfigComponent, ConfigParser, ReferenceResolver

from common.bundling.ids import RUN_ARGUMENTS, check_overrides, config_ids, known_ids, lay, merge, references
from common.bundling.targets import NOT_ARGUMENTS, argument_faults, locate, takes
from common.checks import InputError

CONFIG = {
    "epochs": 3,
    "net": {"_target_": "BasicUNet", "spatial_dims": 3, "features": [8, 8, 8, 8, 8, 8]},
    "train": {"trainer": {"max_epochs": "@epochs"}, "handlers": [{"_target_": "StatsHandler"}]},
}


def test_ids_are_those_that_monai_resolves():
    parser = ConfigParser(copy.deepcopy(CONFIG))
    parser.parse()
    assert known_ids(CONFIG) == set(parser.ref_resolver.items) - {""}
    assert config_ids(CONFIG)["train::handlers::0::_target_"] == "StatsHandler"


@pytest.mark.parametrize(
    "text", ["@a", "@a::b::0", "@a#b", "$@a + @b::c.x(@a)", "mail@a", "@my-net", "plain", "$1 + 2", "@a b", "%a"]
)
def test_references_are_those_that_monai_finds(text):
    assert references(text) == list(ReferenceResolver.match_refs_pattern(text))


def test_reserved_keys_are_those_of_monai():
    assert NOT_ARGUMENTS == ConfigComponent.non_arg_keys


def test_overlays_merge_as_monai_merges_them(tmp_path):
    overlays = [
        {"epochs": 5, "net::features": [1], "+train::handlers": [{"_target_": "GarbageCollector"}]},
        {"train#trainer": 1, "new": 2},
    ]
    files = []
    for number, content in enumerate([CONFIG, *overlays]):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(content))
    assert merge(files) == ConfigParser.load_config_files(files)
    before = copy.deepcopy(CONFIG)
    lay(CONFIG, *overlays)
    assert before == CONFIG


def test_an_overlay_without_a_place_is_refused(tmp_path):
    with pytest.raises(InputError, match="'trian::trainer' can not be set.*use 'train::trainer'"):
        lay(CONFIG, {"trian::trainer": 1})
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="holds no JSON object"):
        merge([tmp_path / "list.json"])


@pytest.mark.parametrize(
    "name",
    [
        "epochs",
        "net::features",
        "net#features::0",
        "net::dropout",
        "net::_disabled_",
        "_meta_::version",
        *sorted(RUN_ARGUMENTS),
    ],
)
def test_valid_overrides_pass(name):
    check_overrides(CONFIG, [name])


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("epoch", "use 'epochs'"),
        ("net::feature", r"use 'net::features' \(BasicUNet takes no argument 'feature'\)"),
        ("train#trainer#max_epoch", "use 'train::trainer::max_epochs'"),
        ("max_epochs", "use 'train::trainer::max_epochs'"),
        ("train::handlers::7", "use 'train::handlers"),
        ("zzzz", "choose an id that the config has"),
    ],
)
def test_an_override_that_answers_to_nothing_names_the_nearest(name, advice):
    with pytest.raises(InputError, match=f"--{name} answers to no id of the config.*{advice}"):
        check_overrides(CONFIG, ["epochs", name])


def test_refusing_an_override_does_not_import_monai():
    code = "import sys; from common.bundling.ids import config_ids as f; f({'a': 1}); sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("target", ["LoadImaged", "torch.optim.SGD", "common.files.bundle_root"])
def test_targets_are_found(target):
    assert callable(locate(target))


@pytest.mark.parametrize("target", ["LoadImagd", "torch.optim.SDG", "common.nowhere.X", "print", "common.files"])
def test_targets_that_lead_nowhere(target):
    assert locate(target) is None


def _make(a, /, b, *rest, c=1):
    return a, b, rest, c


def test_arguments_are_read_from_the_signature():
    assert argument_faults(_make, {"_target_": "x", "d": 1, "rest": 1}) == (["d", "rest"], ["b"], ["b", "c"])
    assert argument_faults(_make, {"_target_": "x", "_mode_": "callable"})[1] == []
    assert takes(lambda **kwargs: None, "anything")
    assert not takes(lambda *, one: None, "other")
