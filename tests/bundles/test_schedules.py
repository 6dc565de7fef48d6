"""Learning rates that fall to zero do so at the last epoch, whoever sets the number of epochs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from ignite.engine import Engine, Events
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


RA_UNET = BUNDLES / "ra_unet_liver" / "configs"


@pytest.mark.parametrize("overlays", [[], ["modern"], ["small", "demo"]], ids=["paper", "modern", "demo"])
@pytest.mark.parametrize("epochs", [None, 5])
def test_three_stages_keep_their_proportion_of_epochs(overlays, epochs):
    """What a caller sets of the last stage reaches the two before it, and schedules that end do so with their stage."""
    parser = ConfigParser()
    parser.read_config([str(RA_UNET / f"{name}.json") for name in ("train", *overlays)])
    parser.update({"localiser_width": 1, "width": 1, "device": "cpu"})
    if epochs is not None:
        parser["train::trainer::max_epochs"] = epochs
    parser.parse()
    wanted = {"tumour": epochs or parser["epochs"]}
    for stage in ("localiser", "liver"):
        wanted[stage] = math.ceil(wanted["tumour"] * parser[f"{stage}_epochs"] / parser["epochs"])
        assert parser.get_parsed_content(f"{stage}::epochs") == wanted[stage]
    schedules = {stage: parser.get_parsed_content(f"{stage}_lr_scheduler") for stage in wanted}
    found = {stage: schedule.total_iters for stage, schedule in schedules.items() if hasattr(schedule, "total_iters")}
    assert found == wanted or (found == {} and "modern" not in overlays)


def test_the_rate_falls_where_the_held_out_score_stands_still():
    """Each stage's plateau is that of its own validator, and an epoch before any validation is none."""
    parser = ConfigParser()
    parser.read_config([str(RA_UNET / f"{name}.json") for name in ("train", "small")])
    parser.update({"localiser_width": 1, "width": 1, "device": "cpu", "plateau_patience": 2})
    sections = {"localiser": ("localiser", "localiser"), "liver": ("liver", "liver"), "tumour": ("train", "validate")}
    for stage, (section, validator) in sections.items():
        handler = parser.get_parsed_content(f"{section}::handlers")[1]
        evaluator = parser.get_parsed_content(f"{validator}::evaluator")
        assert handler.lr_scheduler is parser.get_parsed_content(f"{stage}_lr_scheduler")
        trainer, optimizer = Engine(lambda engine, batch: None), handler.lr_scheduler.optimizer
        handler.attach(trainer)

        @trainer.on(Events.EPOCH_STARTED(once=2))
        def validate(engine, evaluator=evaluator):
            evaluator.state.metrics["val_mean_dice"] = 0.2

        rates = []

        @trainer.on(Events.EPOCH_COMPLETED)
        def note(engine, rates=rates, optimizer=optimizer):
            rates.append(optimizer.param_groups[0]["lr"])

        trainer.run([0], max_epochs=5)
        assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3, 1e-4]), stage


def test_localiser_and_liver_are_trained_alone_where_tumours_have_no_epochs():
    parser = ConfigParser()
    parser.read_config(str(RA_UNET / "train.json"))
    parser.update({"localiser_width": 1, "width": 1, "device": "cpu", "epochs": 0, "localiser_epochs": 7})
    assert parser.get_parsed_content("localiser::epochs") == 7
    assert parser.get_parsed_content("liver::epochs") == 50


@pytest.mark.parametrize("volumes, patches, batch, drawn", [(3, 5, 2, 16), (3, 4, 6, 12), (1, 1, 6, 6)])
def test_no_batch_is_left_with_a_single_patch(volumes, patches, batch, drawn):
    parser = ConfigParser()
    parser.read_config(str(RA_UNET / "train.json"))
    parser.update(
        {
            "train::dataset::data": [{}] * volumes,
            "tumour_patches_per_volume": patches,
            "slabs_per_volume": patches,
            "batch_size": batch,
            "liver_batch_size": batch,
        }
    )
    for loader in ("train::dataloader", "liver::dataloader"):
        assert parser.get_parsed_content(f"{loader}::sampler::num_samples") == drawn


@pytest.mark.parametrize("epochs", [None, 5])
def test_the_modern_schedule_of_projections_follows_its_trainer(epochs):
    parser = ConfigParser()
    configs = BUNDLES / "random25d_mra" / "configs"
    parser.read_config([str(configs / f"{name}.json") for name in ("train", "modern")])
    parser.update({"widths": [2, 4], "device": "cpu"})
    if epochs is not None:
        parser["train::trainer::max_epochs"] = epochs
    parser.parse()
    handler = parser.get_parsed_content("train::handlers::2")
    assert handler.lr_scheduler is parser.get_parsed_content("lr_scheduler")
    assert handler.lr_scheduler.total_iters == (epochs or 300)
