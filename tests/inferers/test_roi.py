"""The inferer of regions of interest against a slow one that works box by box and voxel by voxel."""

import itertools
import json
import logging
import re

import numpy as np
import pytest
import torch
from located import Ensemble, Marker, Member, slow_member
from monai.data import MetaTensor
from scipy import ndimage

from common.checks import InputError
from common.inferers.roi import RoIInferer
from common.networks.ru_net import RUNetEnsemble

MAPS = ("uncertainty", "rois", "members", "contour", "probability")


def hills(*shape, items=1, seed=0, scale=1.0):
    """Smooth volumes, 0 .. `scale`, with a few bright places."""
    rng = np.random.default_rng(seed)
    volumes = []
    for _ in range(items):
        noise = ndimage.gaussian_filter(rng.normal(size=shape), (0.8, 2.0, 2.0), mode="constant")
        noise = (noise - noise.min()) / max(np.ptp(noise), 1e-9)
        volumes.append(scale * noise**5)
    return torch.from_numpy(np.stack(volumes)[:, None]).float()


def logged(caplog, text, level=logging.WARNING):
    return any(record.levelno == level and re.search(text, record.getMessage()) for record in caplog.records)


CASES = {
    "plain": dict(shape=(6, 24, 28)),
    "odd": dict(shape=(7, 25, 31)),
    "one-slice": dict(shape=(1, 30, 27)),
    "thin": dict(shape=(9, 5, 26)),
    "less-than-a-cell": dict(shape=(5, 3, 9), threshold=0.3),
    "batch-2": dict(shape=(5, 20, 22), items=2),
    "whole": dict(shape=(5, 18, 22), rois="whole"),
    "normalised": dict(shape=(6, 24, 28), normalise_heat=True, scale=0.4),
    "top-1": dict(shape=(6, 24, 28), top=1, threshold=0.7),
    "no-margin": dict(shape=(6, 24, 28), margin=0, threshold=0.6),
    "covers-everything": dict(shape=(5, 18, 22), margin=(9, 9, 9)),
    "overlaps": dict(shape=(6, 30, 34), margin=(1, 3, 3), threshold=0.8),
    "one-member-finds-nothing": dict(shape=(6, 24, 28), threshold=0.97),
    "nothing": dict(shape=(6, 24, 28), scale=0.1),
}


@pytest.mark.parametrize("case", list(CASES), ids=list(CASES))
def test_equals_the_slow_inferer(case):
    settings = dict(CASES[case])
    shape, items, scale = settings.pop("shape"), settings.pop("items", 1), settings.pop("scale", 1.0)
    volumes, network = hills(*shape, items=items, scale=scale), Ensemble()
    given = {"rois": "located", "threshold": 0.5, "normalise_heat": False, "margin": (1, 2, 2), "top": 10, **settings}
    inferer = RoIInferer(**given, maps=MAPS)
    answer = inferer(volumes, network)
    assert answer.shape == (items, 8, *shape) and answer.dtype == torch.float32

    given["margin"] = (given["margin"],) * 3 if isinstance(given["margin"], int) else given["margin"]
    numbers, share = dict.fromkeys(network.members, 0), []
    for volume, maps in zip(volumes, answer.double().numpy()):
        found = {name: slow_member(volume[0], member, **given) for name, member in network.members.items()}
        regions = np.stack([region for region, *_ in found.values()])
        union = np.any([inside for _, _, inside, *_ in found.values()], axis=0)
        expected = np.stack(
            [
                regions.mean(0),
                regions.var(0),
                union,
                *regions,
                np.mean([contour for _, contour, *_ in found.values()], axis=0),
                regions.mean(0),
            ]
        )
        np.testing.assert_allclose(maps, expected, rtol=0, atol=2e-6)
        share.append(union.mean())
        for name, (*_, boxes, _) in found.items():
            numbers[name] += boxes
    assert inferer.report["rois"] == numbers
    assert inferer.report["roi_share"] == pytest.approx(np.mean(share))
    assert inferer.report["found"] == (min(share) > 0)


def test_the_cases_are_what_they_say():
    def rois(case):
        settings = dict(CASES[case])
        shape, scale = settings.pop("shape"), settings.pop("scale", 1.0)
        inferer = RoIInferer(**settings)
        inferer(hills(*shape, scale=scale), Ensemble())
        return inferer.report

    assert max(rois("plain")["rois"].values()) >= 2
    assert 0 < rois("no-margin")["roi_share"] < 0.5
    assert rois("top-1")["rois_left_out"] > 0
    assert rois("covers-everything")["roi_share"] == 1
    assert min(rois("one-member-finds-nothing")["rois"].values()) == 0 and rois("one-member-finds-nothing")["found"]
    assert rois("nothing")["rois"] == {"one": 0, "two": 0, "three": 0} and not rois("nothing")["found"]


def test_boxes_overlap_and_are_averaged():
    """Two bright spots whose boxes meet: the voxels between are the mean of what either region says of them."""
    volume = torch.zeros(1, 1, 2, 4, 48)
    volume[..., 8], volume[..., 28:35] = 1, 0.9
    member = Member(spread=-4)
    answer = RoIInferer(margin=(0, 0, 4))(volume, Ensemble(one=member))[0, 0]
    assert member.decoded == [(2, 4, 36), (2, 4, 28)]
    with torch.no_grad():
        features = member.encode(volume)
        left, right = (
            member.decode(*(f[..., slice(*(end * f.shape[-1] // 48 for end in ends))] for f in features))[0].sigmoid()
            for ends in ((0, 28), (12, 48))
        )
    torch.testing.assert_close(answer[..., :12], left[0, 0, ..., :12])
    torch.testing.assert_close(answer[..., 28:], right[0, 0, ..., 16:])
    torch.testing.assert_close(answer[..., 12:28], (left[0, 0, ..., 12:] + right[0, 0, ..., :16]) / 2)
    assert (left[..., 12:] - right[..., :16]).abs().min() > 0.5


@pytest.mark.parametrize("shape", [(8, 16, 20), (7, 15, 21), (1, 13, 9), (3, 2, 18)])
@pytest.mark.parametrize("margin", [0, (1, 2, 2)])
def test_a_marked_voxel_stays_in_place(shape, margin):
    """Corners, borders, middles, one by one and all at once: what comes back is what was marked."""
    ends = [sorted({0, length // 2, length - 1}) for length in shape]
    voxels = list(itertools.product(*ends))
    together = torch.zeros(1, 1, *shape)
    for voxel in voxels:
        alone = torch.zeros(1, 1, *shape)
        alone[(..., *voxel)] = together[(..., *voxel)] = 1
        member = Marker()
        assert torch.equal(RoIInferer(margin=margin)(alone, Ensemble(one=member)), alone)
        assert len(member.decoded) == 1
    assert torch.equal(RoIInferer(margin=margin, top=None)(together, Ensemble(one=Marker())), together)


def test_several_regions_stay_in_place_and_the_largest_ten_are_kept(caplog):
    volume = torch.zeros(1, 1, 3, 10, 230)
    for index in range(14):
        volume[0, 0, index % 3, : 4 + index % 6, 16 * index : 16 * index + 1 + index // 2] = 1
    inferer = RoIInferer(margin=0, top=None, maps=["rois"])
    answer = inferer(volume, Ensemble(one=Marker()))
    assert inferer.report["rois"] == {"one": 14} and inferer.report["rois_left_out"] == 0
    assert torch.equal(answer[:, :1], volume) and not logged(caplog, "the 10 largest")

    inferer = RoIInferer(margin=0)
    kept = inferer(volume, Ensemble(one=Marker()))
    assert inferer.report["rois"] == {"one": 10} and inferer.report["rois_left_out"] == 4
    assert logged(caplog, "one found 14 regions of interest; the 10 largest are decoded")
    assert torch.equal(kept * volume, kept)
    assert ndimage.label(kept[0, 0], np.ones((3, 3, 3)))[1] == 10


def test_nothing_found_is_said_and_is_zero(caplog):
    inferer = RoIInferer(maps=MAPS)
    network = Ensemble()
    answer = inferer(torch.full((1, 1, 4, 12, 14), 0.2), network)
    assert answer.shape == (1, 8, 4, 12, 14) and not answer.any()
    assert logged(
        caplog,
        r"no region of interest was found in a volume of 4x12x14 voxels: the heat maps reach 0\.027 \(one\), "
        r"0\.000 \(two\), 0\.182 \(three\), the threshold is 0\.5; the answer is empty",
    )
    assert not any(member.decoded for member in network.members.values())
    assert inferer.report["found"] is False and inferer.report["roi_share"] == 0


def test_a_constant_map_normalised_as_released_finds_nothing(caplog):
    assert not RoIInferer(normalise_heat=True)(torch.ones(1, 1, 2, 8, 8), Ensemble()).any()
    assert logged(caplog, "no region of interest was found")


@pytest.mark.parametrize("normalise_heat", [False, True])
def test_heat_maps_are_repeated_to_voxels_and_nothing_is_decoded(normalise_heat):
    volumes, network = hills(5, 18, 23, items=2, scale=0.6), Ensemble()
    answer = RoIInferer(output="heat", normalise_heat=normalise_heat)(volumes, network)
    assert answer.shape == volumes.shape and answer.dtype == torch.float32
    assert not any(member.decoded for member in network.members.values())
    settings = ("located", 0.5, normalise_heat, (1, 2, 2), 10)
    for volume, heat in zip(volumes, answer):
        cells = np.mean([slow_member(volume[0], member, *settings)[4] for member in network.members.values()], axis=0)
        for voxel in np.ndindex(5, 18, 23):
            cell = tuple(index // step for index, step in zip(voxel, (2, 4, 4)))
            assert heat[(0, *voxel)] == pytest.approx(cells[cell], abs=1e-6)


def test_further_maps_leave_the_first_channel_as_it_is():
    volumes, network = hills(6, 24, 28), Ensemble()
    alone = RoIInferer()(volumes, network)
    assert alone.shape == volumes.shape
    assert torch.equal(RoIInferer(maps=MAPS)(volumes, network)[:, :1], alone)
    assert torch.equal(RoIInferer(maps="probability")(volumes, network), torch.cat([alone, alone], dim=1))


def test_one_member_has_no_variance():
    answer = RoIInferer(maps=["uncertainty"])(hills(6, 24, 28), Ensemble(one=Member()))
    assert answer[:, 0].any() and not answer[:, 1].any()


def test_features_of_one_member_and_volume_are_held_at_a_time():
    class Counting(Ensemble):
        def held(self):
            return [count for member in self.members.values() for count in member.held]

    for settings in (dict(), dict(output="heat"), dict(rois="whole")):
        network = Counting()
        alive = []
        for member in network.members.values():
            member.alive = alive  # of all members together
        RoIInferer(**settings)(hills(6, 24, 28, items=2), network)
        assert len(alive) == 18 and network.held() == [0] * 6


def test_inputs_are_left_as_they_were_and_metadata_survive():
    affine = torch.tensor([[4.0, 0, 0, -20], [0, -1, 0, 7], [0, 0, 1, 3], [0, 0, 0, 1]])
    volume = MetaTensor(hills(5, 18, 22), affine=affine, meta={"filename_or_obj": "case.nii.gz"})
    before = volume.clone()
    answer = RoIInferer()(volume, Ensemble())
    assert isinstance(answer, MetaTensor) and torch.equal(answer.affine, volume.affine)
    assert answer.meta["filename_or_obj"] == "case.nii.gz"
    assert torch.equal(volume.as_tensor(), before.as_tensor())
    assert torch.equal(answer.as_tensor(), RoIInferer()(volume.as_tensor(), Ensemble()))


def test_the_report_is_plain_numbers(caplog):
    caplog.set_level(logging.INFO)
    inferer = RoIInferer()
    inferer(hills(6, 24, 28), Ensemble())
    report = json.loads(json.dumps(inferer.report))
    assert list(report) == ["rois", "rois_left_out", "roi_share", "found", "seconds"]
    assert list(report["seconds"]) == ["encode", "locate", "crop", "decode", "paste"]
    assert all(seconds > 0 for seconds in report["seconds"].values())
    assert logged(caplog, r"regions of interest: \d+ of one, \d+ of two, \d+ of three, together \d", logging.INFO)
    inferer = RoIInferer(output="heat")
    inferer(hills(6, 24, 28), Ensemble())
    assert list(inferer.report) == ["seconds"] and inferer.report["seconds"]["decode"] == 0


def test_half_precision_logits_are_widened_before_they_are_averaged():
    class Half(Member):
        def decode(self, f1, f2, f3):
            return tuple(head.bfloat16() for head in super().decode(f1, f2, f3))

    volumes = hills(6, 24, 28)
    half = RoIInferer()(volumes, Ensemble(one=Half(), two=Half(0.6)))
    whole = RoIInferer()(volumes, Ensemble(one=Member(), two=Member(0.6)))
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.02


class TestRUNet:
    """The real network, small."""

    @pytest.fixture(scope="class")
    def network(self):
        torch.manual_seed(0)
        return RUNetEnsemble(variants=("RF64", "RF112"), width=2).eval()

    @pytest.mark.parametrize("shape", [(6, 24, 28), (7, 21, 30), (1, 18, 22)])
    @pytest.mark.parametrize("rois", ["located", "whole"])
    def test_equals_the_slow_inferer(self, network, shape, rois):
        volume = hills(*shape)
        settings = dict(rois=rois, threshold=0.75, normalise_heat=True, margin=(0, 1, 1), top=10)
        inferer = RoIInferer(**settings, maps=["members", "contour"])
        answer = inferer(volume, network)[0]
        found = [slow_member(volume[0, 0], member, **settings) for member in network.members.values()]
        for member, (region, *_) in zip(answer[1:3], found):
            np.testing.assert_allclose(member.numpy(), region, rtol=0, atol=1e-5)
        contour = np.mean([contour for _, contour, *_ in found], axis=0)
        np.testing.assert_allclose(answer[3].numpy(), contour, rtol=0, atol=1e-5)
        if rois == "located" and shape[0] > 1:
            assert max(inferer.report["rois"].values()) > 1  # so decoding one region must leave the others' features

    def test_the_whole_volume_as_one_region_is_the_network_itself(self, network):
        volume = hills(4, 24, 28)
        with torch.no_grad():
            torch.testing.assert_close(RoIInferer(rois="whole")(volume, network), network(volume))

    def test_no_graph_is_kept(self, network):
        assert not RoIInferer()(hills(4, 24, 28).requires_grad_(), network).requires_grad

    @pytest.mark.gpu
    def test_gpu_agrees(self, network):
        volume = hills(7, 45, 50)
        inferer = RoIInferer(normalise_heat=True, threshold=0.8, maps=MAPS)
        expected = inferer(volume, network)
        torch.testing.assert_close(inferer(volume.cuda(), network.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)
        network.cpu()


@pytest.mark.parametrize(
    "settings, text",
    [
        (dict(rois="locate"), "rois is 'locate': it must be one of located, whole.*use 'located'"),
        (dict(output="labels"), "output is 'labels': it must be one of region, heat"),
        (dict(threshold=0), "threshold of 0 .*a probability above 0"),
        (dict(margin=(1, 2)), "margin of .*whole cells"),
        (dict(top=0), "top=0 regions"),
        (dict(maps=["uncertanty"]), "an entry of maps is 'uncertanty': .*use 'uncertainty'"),
        (dict(maps=["rois", "rois"]), "a map is written once"),
        (dict(output="heat", maps=["rois"]), "heat maps come alone"),
        (dict(output="heat", rois="whole"), "heat maps come alone"),
    ],
)
def test_other_arguments_are_refused(settings, text):
    with pytest.raises(InputError, match=text):
        RoIInferer(**settings)


@pytest.mark.parametrize("shape", [(1, 2, 4, 8, 8), (4, 8, 8), (1, 1, 0, 8, 8)])
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=re.escape(f"inputs of {shape}: volumes come as B 1 D H W")):
        RoIInferer()(torch.zeros(shape), Ensemble())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_volume_that_is_not_finite_is_refused(value):
    volume = hills(4, 12, 12)
    volume[0, 0, 2, 3, 4] = value
    with pytest.raises(InputError, match="1 of 576 voxels are not finite: normalisation spreads a single one"):
        RoIInferer()(volume, Ensemble())


def test_a_network_without_members_is_refused():
    with pytest.raises(InputError, match="the network Member has no members.*RUNetEnsemble, unwrapped"):
        RoIInferer()(hills(4, 12, 12), Member())


def test_answers_that_are_not_finite_are_refused():
    class Diverged(Member):
        def decode(self, f1, f2, f3):
            return tuple(head * torch.nan for head in super().decode(f1, f2, f3))

    with pytest.raises(InputError, match="a decoded region holds values that are not finite"):
        RoIInferer()(hills(4, 12, 12), Ensemble(one=Diverged()))
    with pytest.raises(InputError, match="the heat map of bad holds values that are not finite.*--amp false"):
        RoIInferer()(hills(4, 12, 12), Ensemble(good=Member(), bad=Member(gain=float("nan"))))
