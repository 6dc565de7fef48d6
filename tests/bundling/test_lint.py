"""Every rule of the gate goes red: one fault is planted in a copy of a clean bundle, and the finding says what to do."""

# ruff: noqa: E501  (a fault is a row)
from __future__ import annotations

import json
import logging
import re

import pytest
import stock_bundle
import torch
from monai.utils import get_seed

from common.bundling.bundle import open_bundle
from common.bundling.lint import RULES, Finding, lint
from common.checks import InputError

DELETE = object()


def plant(root, file, changes):
    """Change parts of one config, named by their path; `DELETE` removes one. Without a file: replace or remove one."""
    if file is None and isinstance(changes, str):
        (root / changes.removeprefix("remove ")).unlink()
    elif file is None:
        (root / changes[0]).write_text(changes[1], encoding="utf-8")
    else:
        path = root / "configs" / file
        config = json.loads(path.read_text())
        for name, value in changes.items():
            *parents, leaf = (int(part) if part.isdigit() else part for part in name.split("/"))
            holder = config
            for part in parents:
                holder = holder[part]
            if value is DELETE:
                del holder[leaf]
            else:
                holder[leaf] = value
        path.write_text(json.dumps(config))


def experiment(**changes):
    """A file of one experiment with changes; without any a broken one."""
    rows = {"title": "", "name": "row {number}", "count": 2, "settings": {"epochs": "{number}"}}
    told = {
        "title": "A title",
        "source": "a paper",
        "metric": "iou",
        "rows": rows,
        "recipes": {"a": {}},
        "paper": {},
        "notes": [],
    }
    return "docs/experiments.json", json.dumps({"one": {**told, **changes}}) if changes else "{"


def segment(number="1", **changes):
    """The codes of one class, with changes."""
    category, kind = stock_bundle.CODES
    return {number: {"label": "Yes", "category": category, "type": kind, **changes}}


# rule, config (None: any file), what is changed in it, what the finding says
FAULTS = [
    ("recipes", None, "remove configs/modern.json", "configs/modern.json: is not there.*every bundle has train.json"),
    ("recipes", None, "remove configs/evaluate.json", "configs/evaluate.json: is not there"),
    ("json", None, ("configs/small.json", '{"widths": [2, 2], "widths": [2, 4]}'), "configs/small.json: widths: stands twice"),
    ("json", None, ("configs/demo.json", '{"epochs": 1,}'), r"configs/demo.json: is not JSON \(.*correct its syntax"),
    ("json", None, ("configs/demo.json", "[]"), "configs/demo.json: holds no JSON object"),
    ("documents", None, "remove LICENSE", "LICENSE: is not there"),
    ("documents", None, ("docs/README.md", " \n"), "docs/README.md: is empty"),
    ("documents", None, "remove docs/data_license.txt", "docs/data_license.txt: is not there"),
    ("listed", None, ("configs/other.json", "{}"), "configs/other.json: is listed nowhere.*name it in docs/README.md"),
    ("listed", None, ("configs/narrow.yaml", "a: 1"), "configs/narrow.yaml: is listed nowhere"),
    ("logging", None, "remove configs/logging.conf", "configs/logging.conf: is not there"),
    ("logging", None, ("configs/logging.conf", "keys=root\n"), "configs/logging.conf: can not be read"),
    ("logging", None, ("configs/logging.conf", stock_bundle.LOGGING.replace("[formatters]\nkeys=line\n", "")), r"\[formatters\]: has no keys"),
    ("logging", None, ("configs/logging.conf", stock_bundle.LOGGING.replace("keys=console", "keys=consoel")), r"\[handler_consoel\]: is named by keys and is not there.*rename \[handler_console\]"),
    ("logging", None, ("configs/logging.conf", stock_bundle.LOGGING.replace("StreamHandler", "os.system")), "class 'os.system' is unknown"),
    ("logging", None, ("configs/logging.conf", stock_bundle.LOGGING.replace("sys.stdout", "print()")), "logging.conf: refusing to apply"),
    ("metadata", "metadata.json", {"task": DELETE}, "configs/metadata.json: 'task' is a required property"),
    ("metadata", "metadata.json", {"network_data_format/inputs/image/num_channels": "one"}, "inputs::image::num_channels: 'one' is not of type 'integer'|is not valid under any"),
    ("metadata", "metadata.json", {"intended_use": ""}, "intended_use: is missing, empty or of another type"),
    ("metadata", "metadata.json", {"data_source": DELETE}, "data_source: is missing"),
    ("metadata", "metadata.json", {"eval_metrics": DELETE}, "eval_metrics: is missing"),
    ("metadata", "metadata.json", {"references": DELETE}, "references: is missing"),
    ("metadata", "metadata.json", {"changelog": DELETE}, "changelog: is missing"),
    ("metadata", "metadata.json", {"name": DELETE}, "name: is missing"),
    ("metadata", "metadata.json", {"version": "0.3.0"}, "changelog: has no entry for version '0.3.0'"),
    ("metadata", "metadata.json", {"name": "stok"}, "name: is 'stok', the folder is 'stock'"),
    ("metadata", "metadata.json", {"schema": "https://example.org/old.json"}, "schema: is 'https://example.org/old.json'"),
    ("input", "metadata.json", {"expected_input": DELETE}, "'expected_input' is a required property"),
    ("input", "metadata.json", {"expected_input/source": DELETE}, "expected_input: 'source' is a required property"),
    ("input", "metadata.json", {"expected_input/modality": "CT"}, "expected_input::modality: 'CT' is not of type 'array'"),
    ("input", "metadata.json", {"expected_input/spacing": {}}, "expected_input: Additional properties are not allowed"),
    ("input", "metadata.json", {"expected_input/spacing_mm/in_plane": [1.0]}, r"expected_input::spacing_mm::in_plane: \[1.0\] is too short"),
    ("input", "metadata.json", {"expected_input/spacing_mm/in_plane": [None, None]}, "spacing_mm::in_plane: .*does not contain"),
    ("input", "metadata.json", {"expected_input/spacing_mm/in_plane": [1.0, 0.5]}, "spacing_mm::in_plane: is from 1 to 0.5.*lower bound first"),
    ("input", "metadata.json", {"expected_input/intensity": {"unit": "grey"}}, "expected_input::intensity::unit: 'grey' is not one of"),
    ("segments", "metadata.json", {"dicom_segments": DELETE}, "'dicom_segments' is a required property"),
    ("segments", "metadata.json", {"dicom_segments": {}}, "has no class 1, which class_names calls 'yes'.*or write null"),
    ("segments", "metadata.json", {"dicom_segments": segment(label="No")}, "dicom_segments::1::label: is 'No', class_names has 'yes' there"),
    ("segments", "metadata.json", {"dicom_segments": segment() | segment("0", label="a")}, r"dicom_segments::0: \('a'\) is no class of class_names, or its background"),
    ("segments", "metadata.json", {"dicom_segments": segment("one")}, "dicom_segments: 'one' does not match"),
    ("segments", "metadata.json", {"dicom_segments": segment(type=["10200004", "SCT"])}, "dicom_segments::1::type: .* is too short"),
    ("segments", "metadata.json", {"dicom_segments": segment(type=["T-62000", "SRT", "Liver"])}, "dicom_segments::1::type::1: 'SRT' is not one of"),
    ("segments", "metadata.json", {"dicom_segments": segment(color="#ff0000")}, "dicom_segments::1::color: '#ff0000' is not of type 'array'"),
    ("metadata", "train.json", {"bundle_root": {"_target_": "common.files.bundle_root", "name": "other"}}, "bundle_root::name: looks for 'other', the folder is 'stock'"),
    ("references", "train.json", {"optimizer/lr": "@learning_rat"}, "configs/train.json: optimizer::lr: refers to '@learning_rat', which is no id.*write '@learning_rate'"),
    ("references", "train.json", {"network": "$@network_deff.to(@device)"}, "train.json: network: refers to '@network_deff'.*'@network_def'"),
    ("references", "inference.json", {"dataset/transform": "@preprocesing"}, "inference.json: dataset::transform: refers to '@preprocesing'.*'@preprocessing'"),
    ("references", "evaluate.json", {"run": ["$@validate::evaluater.run()"]}, r"evaluate.json: run::0: refers to '@validate::evaluater'.*'@validate::evaluator'"),
    ("references", "train.json", {"optimizer/lr": "@learning-rate"}, "'@learning-rate' is no reference"),
    ("dead", "train.json", {"momentum": 0.9}, "configs/train.json: momentum: is used by nothing"),
    ("dead", "inference.json", {"tools": {"_target_": "SimpleInferer"}}, "configs/inference.json: tools: is used by nothing"),
    ("dead", "train.json", {"train/sampler": {"_target_": "SimpleInferer"}}, "configs/train.json: train::sampler: is used by nothing"),
    ("overlays", "demo.json", {"epoch": 1}, "configs/demo.json: epoch: is no id of what it is laid on.*use 'epochs'"),
    ("overlays", "narrow.json", {"optimizer::lrr": 1.0}, r"narrow.json: optimizer::lrr: is no id.*use 'optimizer::lr'"),
    ("overlays", "modern.json", {"output_dir": "out", "train::trainer::max_epochs": 2}, "modern.json: train::trainer::max_epochs: is laid on inference.json, too, which has no 'train::trainer'"),
    ("overlays", "evaluate.json", {"validate::handlers::0": {"_target_": "StatsHandler"}}, "evaluate.json: validate::handlers::0: names a position of a list"),
    ("rivals", "train.json", {"rivals": ["paper", "modrn"]}, "configs/train.json: rivals::1: 'modrn' is no overlay.*write 'modern'"),
    ("rivals", "demo.json", {"rivals": ["modern:epochz=3"]}, "configs/demo.json: rivals::0: sets 'epochz', which is no id.*use 'epochs'"),
    ("experiments", None, experiment(), "docs/experiments.json: is not JSON"),
    ("experiments", None, experiment(metric=None), "docs/experiments.json: one::metric: None is not of type 'string'"),
    ("experiments", None, experiment(paper={"a": {"row 3": 0.5}}), r"one::paper::a: 'row 3' is not among row 1, row 2.*write 'row"),
    ("experiments", None, experiment(paper={"b": {}}), "one::paper: 'b' is not among a"),
    ("experiments", None, experiment(paper={"a": {"row 1": {"S1": 0.5}}}), "one::paper::a::row 1: is .*give one figure"),
    ("experiments", None, experiment(columns={"title": "", "each": {"S1": {}}}, paper={"a": {"row 1": 0.5}}), "give a figure for each of the columns"),
    ("experiments", None, experiment(columns={"title": "", "each": {"S1": {}}}, paper={"a": {"row 1": {"S2": 0.5}}}), "'S2' is not among S1"),
    ("experiments", None, experiment(differences=[["a", "c"]]), "one::differences: 'c' is not among a"),
    ("experiments", None, experiment(beside={"title": "", "cells": {"row 0": "1 %"}}), "one::beside: 'row 0' is not among"),
    ("experiments", None, experiment(recipes={"a": {"settings": {"epochs": 2}}}, settings={"epochs": 3}), "one::recipes::a: sets 'epochs', as the runs do"),
    ("experiments", None, experiment(recipes={"a": {"overlays": ["modrn"]}}), "one::recipes::a: 'modrn' is no overlay.*write 'modern'"),
    ("experiments", None, experiment(recipes={"a": {"settings": {"epochz": 2}}}), "one::recipes::a: 'epochz' is set, which is no id.*use 'epochs'"),
    ("macros", "inference.json", {"network_def": "%train.json::network_def"}, "inference.json: network_def: '%train.json::network_def' is a macro"),
    ("macros", "inference.json", {"dataset/transform": "%preprocessing"}, "'%preprocessing' is a macro"),
    ("macros", "train.json", {"loss": "%other.json"}, "configs/train.json: loss: '%other.json' is a macro"),
    ("hidden", "train.json", {"network": "$common.networks.move(@network_def)"}, "train.json: network: reaches 'common' in an expression.*_target_"),
    ("hidden", "train.json", {"imports": ["$import common.files"]}, "train.json: imports::0: reaches 'common.files'"),
    ("hidden", "train.json", {"imports": ["$from scripts import thing"]}, "imports::0: reaches 'scripts'"),
    ("hidden", "train.json", {"seed": "$__import__('common.files')"}, "seed: reaches 'common.files'"),
    ("hidden", "train.json", {"loss/_target_": "$common.losses.Mine"}, "loss::_target_: reaches 'common' in an expression"),
    ("hidden", "inference.json", {"inferer/_target_": "scripts.inferers.Mine"}, "inferer::_target_: 'scripts.inferers.Mine' names a packed bundle's own code"),
    ("initialize", "train.json", {"bundle_root": {"_target_": "common.files.bundle_root", "name": "stock"}, "initialize": ["$print(@bundle_root)"]}, "bundle_root::_target_: 'common.files.bundle_root' is in reach of initialize"),
    ("agreement", "inference.json", {"network_def/strides": [1]}, r"network_def: differs from train.json's \(strides::0: 2 in training, 1 in inference\)"),
    ("agreement", "inference.json", {"widths": [2, 8]}, r"network_def: differs .*channels::1: 4 in training, 8 in inference"),
    ("agreement", "inference.json", {"network": "$@network_def.to(@device).half()"}, "network: is more than network_def on the device in inference.json"),
    ("agreement", "inference.json", {"bright": 200}, r"inference.json: preprocessing: differs from train.json's validate::preprocessing \(1::a_max: 100 in training, 200 in inference"),
    ("agreement", "inference.json", {"preprocessing/transforms/1": DELETE}, "preprocessing: differs"),
    ("agreement", "train.json", {"validate/preprocessing": DELETE, "validate/dataset/transform": "@train::preprocessing"}, "train.json: validate::preprocessing: is not there"),
    ("targets", "train.json", {"loss/_target_": "DiceLos"}, "train.json: loss: 'DiceLos' leads nowhere"),
    ("targets", "train.json", {"loss/_target_": "common.losses.Nothing"}, "'common.losses.Nothing' leads nowhere"),
    ("targets", "train.json", {"loss/softmaxx": True}, "train.json: loss: DiceLoss takes no argument 'softmaxx'.*write 'softmax'"),
    ("targets", "inference.json", {"evaluator/val_data_loader": DELETE}, "inference.json: evaluator: SupervisedEvaluator needs an argument 'val_data_loader'"),
    ("targets", "demo.json", {"+train::trainer": {"_target_": "SupervisedEvaluator"}}, "takes no argument 'max_epochs'"),
    ("targets", "evaluate.json", {"validate::handlers/0/iteration_logg": True}, "evaluate.json: validate::handlers::0: StatsHandler takes no argument 'iteration_logg'"),
    ("properties", "train.json", {"train/trainer/max_epochs": DELETE}, "train.json: check_properties fails .*'max_epochs'"),
    ("properties", "train.json", {"train/trainer/train_handlers": "@train::others", "train/others": []}, "train.json: the property 'train_handlers' is missing or wired to another id"),
    ("properties", "inference.json", {"evaluator/inferer": "@predictor", "predictor": {"_target_": "SimpleInferer"}, "inferer": DELETE}, "inference.json: check_properties fails .*'inferer'"),
    ("shapes", "metadata.json", {"network_data_format/outputs/pred/num_channels": 3}, "verify_net_in_out fails .*output channel number `2` doesn't match: `3`"),
    ("shapes", "metadata.json", {"network_data_format/inputs/image/num_channels": 2}, "network_def: verify_net_in_out fails"),
    ("shapes", "metadata.json", {"network_data_format/outputs/pred/dtype": "int32"}, "dtype of output data"),
    ("shapes", "metadata.json", {"network_data_format/outputs/pred/spatial_shape": [4, 4, 4]}, r"spatial_shape: is \[4, 4, 4\], the network makes \[8, 8, 8\]"),
    ("resolves", "train.json", {"learning_rate": -1.0}, "train.json: run::0: '@train::trainer' can not be built .ValueError: Invalid learning rate: -1.0"),
    ("resolves", "modern.json", {"loss/sigmoid": True}, r"train.json \+ modern.json: run::0: '@train::trainer' can not be built \(ValueError: Incompatible values"),
    ("resolves", "evaluate.json", {"run": ["$@validate::evaluator.evaluate()"]}, "evaluate.json: run::0: '@validate::evaluator' has no 'evaluate'"),
    ("resolves", "train.json", {"prepare": ["$print(@plan)"], "plan": "$[][1]"}, "train.json: prepare::0: '@plan' can not be built .IndexError: list index out of range"),
]  # fmt: skip


@pytest.fixture
def bundle(tmp_path):
    return stock_bundle.write(tmp_path / "stock")


def test_a_clean_bundle_has_no_findings(bundle):
    assert lint(bundle) == []


@pytest.mark.parametrize(
    ("name", "file", "changes", "said"), FAULTS, ids=[f"{row[0]}-{n}" for n, row in enumerate(FAULTS)]
)
def test_a_planted_fault_is_found(bundle, name, file, changes, said):
    plant(bundle, file, changes)
    rule = next(rule for rule in RULES if rule.name == name)
    texts = rule.check(open_bundle(bundle))
    assert any(re.search(said, text) for text in texts), texts
    assert all(re.search(r": .*\. To mend it, \S.*\.$", text) for text in texts)
    assert lint(bundle, quick=rule.needs != "code")  # the gate as a whole is red as well


def test_every_rule_has_a_planted_fault():
    assert {row[0] for row in FAULTS} == {rule.name for rule in RULES}


def test_rules_state_themselves_in_one_line():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.statement.endswith((".", ".)")) for rule in RULES)


def test_properties_are_content_where_an_earlier_stage_can_not_be_built(bundle):
    """What makes the rule 'resolves' needed."""
    first = {
        "_target_": "SupervisedTrainer",
        "device": "@device",
        "max_epochs": 1,
        "train_data_loader": "@train::datalaoder",
    }
    first |= {"network": "@network", "optimizer": "@optimizer", "loss_function": "@loss"}
    plant(bundle, "train.json", {"first": first, "run": ["$@first.run()", "$@train::trainer.run()"]})
    by_name = {rule.name: rule.check for rule in RULES}
    assert by_name["properties"](open_bundle(bundle)) == []
    assert "'@first' can not be built" in by_name["resolves"](open_bundle(bundle))[0]


def test_a_bundle_whose_images_come_from_no_dicom_series_has_no_codes(bundle):
    plant(bundle, "metadata.json", {"dicom_segments": None})
    assert lint(bundle) == []


def test_an_overlay_may_lie_on_another(bundle):
    """What lies on no base alone, but on train.json with another overlay, is in order."""
    plant(bundle, "narrow.json", {"loss::lambda_ce": 0.1})
    assert ("train.json", "modern.json", "narrow.json") in open_bundle(bundle).chains
    assert lint(bundle) == []
    plant(bundle, "modern.json", {"loss": DELETE})
    assert "narrow.json: loss::lambda_ce: is no id of what it is laid on" in str(lint(bundle)[0])


def test_rivals_are_overlays_with_settings_that_are_ids(bundle):
    plant(bundle, "train.json", {"rivals": ["modern", "paper:epochs=3;optimizer::lr=0.1", "modern:epochs=2"]})
    assert lint(bundle) == []


def test_experiments_in_order_have_no_findings(bundle):
    columns = {"title": "", "each": {"S1": {}, "S2": {"bright": 2}}}
    paper = {"a": {"row 1": {"S1": 0.5, "S2": 0.4}, "mean": {"S1": 0.5}}}
    recipes = {"a": {"overlays": ["modern"], "settings": {"num_classes": 3}}, "b": {"overlays": ["narrow"]}}
    more = {"average": "mean", "differences": [["a", "b"]], "beside": {"title": "", "cells": {"row 2": "1 %"}}}
    plant(bundle, None, experiment(columns=columns, paper=paper, recipes=recipes, **more))
    assert lint(bundle) == []


def test_what_only_an_overlay_uses_is_not_dead(bundle):
    plant(bundle, "evaluate.json", {"validate::handlers": []})
    assert ["dead"] == [finding.rule for finding in lint(bundle)]
    assert "train.json: class_names: is used by nothing" in str(lint(bundle)[0])


def test_labels_and_random_steps_may_differ_from_inference(bundle):
    step = {
        "_target_": "Spacingd",
        "keys": ["image", "label"],
        "pixdim": [1.0, 1.0, 1.0],
        "mode": ["bilinear", "nearest"],
    }
    alone = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"}
    plant(bundle, "train.json", {"validate::preprocessing".replace("::", "/") + "/transforms/1": step})
    plant(bundle, "inference.json", {"preprocessing/transforms/1": alone})
    rule = next(rule for rule in RULES if rule.name == "agreement")
    texts = rule.check(open_bundle(bundle))
    assert texts == []
    plant(bundle, "inference.json", {"preprocessing/transforms/1/mode": "nearest"})
    assert "mode" in rule.check(open_bundle(bundle))[0]


def test_a_recipe_that_only_training_follows_is_found(bundle):
    """A recipe must change inference's network as well, or its weights fit nothing."""
    plant(bundle, "train.json", {"act": "RELU", "network_def/act": "@act"})
    plant(bundle, "inference.json", {"network_def/act": "RELU"})
    plant(bundle, "modern.json", {"act": "PRELU"})
    found = [str(finding) for finding in lint(bundle)]
    assert len(found) == 1
    assert "inference.json + modern.json: network_def: differs from train.json's (act: " in found[0]


def test_rules_that_build_come_after_all_others(bundle):
    plant(bundle, "train.json", {"optimizer/lr": "@learning_rat", "loss/_target_": "DiceLos"})
    assert {finding.rule for finding in lint(bundle)} == {"references", "dead"}


def test_quick_reads_json_only(bundle):
    plant(bundle, "train.json", {"loss/_target_": "DiceLos"})
    assert lint(bundle, quick=True) == []
    assert [finding.rule for finding in lint(bundle)][0] == "targets"


def test_the_gate_leaves_no_trace(bundle):
    """Neither the folder nor determinism nor logging are changed by a look, though configs ask for all three."""

    def state():
        files = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
        return files, get_seed(), torch.backends.cudnn.deterministic, logging.root.level, logging.root.manager.disable

    before = state()
    assert lint(bundle) == []
    assert state() == before


def test_a_finding_names_its_rule():
    assert str(Finding("dead", "a: b: c. To mend it, d.")) == "a: b: c. To mend it, d. [dead]"


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(InputError, match="is no bundle: a bundle has a folder 'configs'"):
        lint(tmp_path)
