"""Learning rates that fall to zero do so at the last epoch, whoever sets the number of epochs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
CONFIGS = BUNDLES / "cascaded_multiorgan" / "configs"


@pytest.mark.parametrize("overlays, widths", [(["modern"], [2, 4, 8, 16]), (["small", "demo"], [2, 4])])
@pytest.mark.parametrize("epochs", [None, 5])
def test_schedules_follow_the_trainers(overlays, widths, epochs):
    """MONAI Label and federated clients set ``train::trainer::max_epochs``, and no other number."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in ("train", *overlays)])
    parser.update({"widths": widths, "stage1_iterations": 600, "stage2_iterations": 300, "device": "cpu"})
    if epochs is not None:
        parser["train::trainer::max_epochs"] = epochs
    parser.parse()
    wanted = epochs or 300 // parser["iterations_per_epoch"]
    handlers = {"stage1": "stage1::handlers::1::lr_scheduler", "train": "train::handlers::1::lr_scheduler"}
    found = {name: parser.get_parsed_content(key).total_iters for name, key in handlers.items()}
    assert found == {"stage1": 2 * wanted, "train": wanted}


def test_the_schedule_of_a_single_stage_follows_its_trainer():
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / "unet3d_sparse" / "configs" / f"{name}.json") for name in ("train", "small")])
    parser.update({"widths": [2, 4], "device": "cpu"})
    parser["train::trainer::max_epochs"] = 5
    parser.parse()
    assert parser.get_parsed_content("lr_scheduler").total_iters == 5


@pytest.mark.parametrize("overlays", [["modern"], ["small", "demo"], ["whole_volume"]])
@pytest.mark.parametrize("epochs", [None, 5])
def test_the_schedules_of_an_ensembles_phases_follow_the_trainer(overlays, epochs):
    """The locator's phase keeps its share of the epochs that the joint phase is given."""
    parser = ConfigParser()
    configs = BUNDLES / "ru_net_colorectal" / "configs"
    parser.read_config([str(configs / f"{name}.json") for name in ("train", *overlays)])
    parser.update({"width": 1, "device": "cpu"})
    if epochs is not None:
        parser["train::trainer::max_epochs"] = epochs
    parser.parse()
    wanted = epochs or parser["epochs"]
    locator = math.ceil(wanted * parser["locator_epochs"] / parser["epochs"])
    handlers = {"locator": "locate::handlers::1::lr_scheduler", "joint": "train::handlers::1::lr_scheduler"}
    found = {name: parser.get_parsed_content(key).total_iters for name, key in handlers.items()}
    assert found == {"locator": locator, "joint": wanted}
    assert parser.get_parsed_content("locate::epochs") == locator


def test_a_locator_is_trained_alone_where_the_joint_phase_has_no_epochs():
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / "ru_net_colorectal" / "configs" / "train.json"))
    parser.update({"width": 1, "device": "cpu", "epochs": 0, "locator_epochs": 7})
    assert parser.get_parsed_content("locate::epochs") == 7
