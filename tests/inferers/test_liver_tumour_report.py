"""RA-UNet's inferer where little or nothing is found, what it tells of a call, and what it refuses."""

import copy
import json
import logging
import pickle
import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch
from scipy import ndimage
from staged import MAPS, Constant, Stages, body, inferer_of

from common.checks import InputError
from common.inferers import LiverTumourInferer, VotingInferer


def warned(caplog, text):
    return any(record.levelno == logging.WARNING and re.search(text, record.getMessage()) for record in caplog.records)


@pytest.mark.parametrize("what", ["labels", "maps"])
def test_where_the_localiser_finds_nothing_nothing_else_is_run(caplog, what):
    network = Stages()
    network.localiser = Constant(-1.0)
    inferer = inferer_of(maps=MAPS if what == "maps" else ())
    result = inferer(body(40, 36, 30), network)
    assert result.shape[1] == (5 if what == "maps" else 1) and not result.any()
    assert warned(caplog, "the localiser found no liver in 30 slices: the answer is empty")
    assert not network.liver.sizes and not network.tumour.sizes and len(network.localiser.sizes) == 4
    report = inferer.report
    assert report["liver_found"] is False and report["box_share"] == report["tumours"] == 0
    assert report["windows"] == {"localiser": 30, "liver": 0, "tumour": 0}


@pytest.mark.parametrize("threshold_first", [False, True])
def test_a_box_without_a_liver_is_empty(caplog, threshold_first):
    network = Stages()
    network.liver = Constant(0.4)  # a probability of 0.599
    inferer = inferer_of(maps=MAPS, threshold_first=threshold_first)
    result = inferer(body(40, 36, 30), network)
    assert not result[:, 0].any() and not result[:, 4].any() and result[:, 1].any() and result[:, 3].any()
    assert warned(caplog, r"no voxel of the liver's box \(\d+x\d+x\d+ voxels\) reached a probability of 0.6")
    assert not network.tumour.sizes and inferer.report["liver_found"] is False
    assert inferer.report["box_share"] == pytest.approx(result[0, 2].mean().item())


def test_a_liver_without_a_tumour_is_an_answer_like_any_other(caplog):
    network = Stages()
    network.tumour = Constant(-0.01)
    inferer = inferer_of()
    result = inferer(body(40, 36, 30), network)
    assert set(result.unique().tolist()) == {0, 1} and inferer.report["tumours"] == 0
    assert inferer.report["liver_found"] is True and network.tumour.sizes and not caplog.records


def test_an_empty_volume_in_a_batch_leaves_the_other_alone(caplog):
    volume, network = body(40, 36, 30, items=2), Stages()
    expected = inferer_of()(volume[1:], network)
    volume[0] = 0
    inferer = inferer_of()
    result = inferer(volume, network)
    assert not result[0].any() and torch.equal(result[1:], expected)
    assert inferer.report["liver_found"] is False and inferer.report["tumours"] > 0


@pytest.mark.parametrize("spleen, told", [(0.6, False), (1.5, True)])
def test_a_second_part_of_half_the_size_is_told(caplog, spleen, told):
    volume = body(48, 36, 30, spleen=spleen, liver=((0.3, 0.5, 0.5), (0.22, 0.3, 0.3)))
    result = inferer_of(maps=("box",))(volume, Stages())
    assert warned(caplog, r"the localiser's mask has 2 parts, of which the second has \d+ voxels") is told
    assert result[0, 0, 14].any() and not result[0, 0, 40].any()


def test_two_parts_in_the_box_leave_the_larger(caplog):
    volume, network = body(48, 36, 30, spleen=1.5, liver=((0.3, 0.5, 0.5), (0.22, 0.3, 0.3))), Stages()
    network.localiser = Constant(1.0)
    result = inferer_of()(volume, network)
    assert warned(caplog, r"what the liver network found has 2 parts")
    assert result[0, 0, 14].any() and not result[0, 0, 40].any()


@pytest.mark.parametrize("batched", [True, False])
def test_the_report_holds_plain_numbers(caplog, batched):
    caplog.set_level(logging.INFO)
    affine = torch.tensor([[-0.8, 0, 0, 5], [0, 0.7, 0, 1], [0, 0, 2.5, 9], [0, 0, 0, 1]], dtype=torch.float64)
    items = 2 if batched else 1
    volume = MetaTensor(body(40, 36, 30, items=items), affine=affine.expand(items, 4, 4) if batched else affine)
    volume.is_batch = batched
    inferer = inferer_of(maps=("box",))
    assert inferer.report == {}
    result = inferer(volume, Stages()).as_subclass(torch.Tensor)
    report = json.loads(json.dumps(inferer.report))
    assert report["box_share"] == pytest.approx(result[:, 1].float().mean().item())
    voxel = 0.8 * 0.7 * 2.5 / 1000
    assert report["liver_ml"] == pytest.approx(voxel * (result[:, 0] > 0).sum().item())
    assert report["tumour_ml"] == pytest.approx(voxel * (result[:, 0] == 2).sum().item())
    assert report["liver_found"] is True and report["tumours"] >= items
    assert set(report["seconds"]) == {"localiser", "box", "liver", "largest part", "tumour", "paste"}
    assert min(report["seconds"].values()) > 0 and report["windows"]["localiser"] == 30 * items
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert len(lines) == items and all("liver box" in line and "windows" in line for line in lines)
    plain = inferer_of()
    plain(volume.as_tensor(), Stages())
    assert "liver_ml" not in plain.report and "tumour_ml" not in plain.report
    assert plain.report["windows"] == report["windows"]


def test_tumours_are_counted_by_components_that_touch_at_corners_too():
    volume, network = body(40, 36, 30, tumour=False, items=2), Stages()
    volume[0, 0, 8:11, 15:18, 12:15] = volume[0, 0, 17:20, 17:20, 16:19] = 0.4
    inferer = inferer_of()
    result = inferer(volume, network).numpy()
    counts = [ndimage.label(labels[0] == 2, np.ones((3, 3, 3)))[1] for labels in result]
    assert inferer.report["tumours"] == sum(counts) and min(counts) > 1
    assert sum(counts) < sum(ndimage.label(labels[0] == 2)[1] for labels in result)


def test_metadata_survives():
    affine = torch.diag(torch.tensor([-0.7, 0.7, 1.5, 1.0], dtype=torch.float64))
    volume = MetaTensor(body(41, 35, 30), affine=affine[None], meta={"filename_or_obj": ["case"]})
    volume.is_batch = True
    result = inferer_of(maps=("localiser",))(volume, Stages())
    assert isinstance(result, MetaTensor) and result.is_batch and result.shape == (1, 2, 41, 35, 30)
    case = decollate_batch(result)[0]
    assert torch.equal(case.affine, affine) and case.meta["filename_or_obj"] == "case"


def test_it_can_be_pickled_and_copied():
    volume, network, inferer = body(40, 36, 30), Stages(), inferer_of()
    expected = inferer(volume, network)
    for other in (pickle.loads(pickle.dumps(inferer)), copy.deepcopy(inferer)):
        assert torch.equal(other(volume, network), expected)


ERRORS = {
    "stage": (
        dict(stage="lever"),
        "stage is 'lever': it must be one of localiser, liver, tumour. To mend it, use 'liver'",
    ),
    "map": (dict(maps=("boxes",)), "a map is 'boxes'.*localiser, box, liver_probability.*use 'box'"),
    "later-map": (dict(maps=("tumour_probability",), stage="liver"), "tumour_probability' with stage='liver'"),
    "twice": (dict(maps=("box", "box")), "a map is one channel. To mend it, name each once"),
    "threshold": (dict(liver_threshold=1.5), "liver_threshold is 1.5: a probability"),
    "threshold-0": (dict(localiser_threshold=0), "localiser_threshold is 0.*0 takes all"),
    "margin": (dict(box_margin=(1, -1, 0)), r"box_margin=\(1, -1, 0\).*makes the box larger"),
    "margin-mm": (dict(box_margin_mm=-2.0), "box_margin_mm=-2.0.*pass 0 or more"),
    "size": (dict(localiser_size=(24, 20, 8)), r"localiser_size is \(24, 20, 8\).*two axes"),
    "batch": (dict(localiser_batch_size=0), "localiser_batch_size is 0.*at least one slice"),
}


@pytest.mark.parametrize("settings, text", ERRORS.values(), ids=ERRORS.keys())
def test_refuses_arguments(settings, text):
    with pytest.raises(InputError, match=text):
        inferer_of(**settings)


@pytest.mark.parametrize("settings", [dict(output="labels"), dict(output="probabilities", vote="majority")], ids=str)
def test_refuses_tiles_that_do_not_give_mean_probabilities(settings):
    tiles = VotingInferer(8, output="probabilities", activation="sigmoid")
    with pytest.raises(InputError, match="tumour_tiles with output=.*use output='probabilities', vote='mean'"):
        LiverTumourInferer(liver_tiles=tiles, tumour_tiles=VotingInferer(8, **settings))


def test_refuses_an_unknown_end():
    with pytest.raises(InputError, match="stage is 'tumor': it must be one of.*use 'tumour'"):
        inferer_of().until("tumor")


def test_refuses_what_can_not_be_run():
    volume, network = body(40, 36, 30), Stages()
    with pytest.raises(InputError, match=r"inputs of \(40, 36, 30\).*B 1 D H W"):
        inferer_of()(volume[0, 0], network)
    with pytest.raises(InputError, match="box_margin_mm=3.0 for a tensor without an affine.*pass a MetaTensor"):
        inferer_of(box_margin_mm=3.0)(volume, network)
    with pytest.raises(InputError, match="network Bright has no localiser and no liver and no tumour.*unwrapped"):
        inferer_of()(volume, network.localiser)
    network.tumour = Constant(1.0, channels=2)
    with pytest.raises(InputError, match="the tumour network gave 2 channels.*out_channels=1"):
        inferer_of()(volume, network)


@pytest.mark.parametrize(
    "stage, text", [("localiser", "localiser's"), ("liver", "liver network's"), ("tumour", "tumour")]
)
def test_answers_that_are_not_finite_are_refused(stage, text):
    network = Stages()
    setattr(network, stage, Constant(float("nan")))
    with pytest.raises(InputError, match=f"{text}.*answer holds values that are not finite"):
        inferer_of()(body(40, 36, 30), network)
