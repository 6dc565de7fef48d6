"""Regions of interest in training: boxes of the locator and of the label, gradients through features alone."""

import re

import numpy as np
import pytest
import torch
from located import Marker, Member, slow_boxes
from monai.data import MetaTensor

from common.checks import InputError
from common.geometry.boxes import Box
from common.geometry.rois import pad_to_cells, pooled_label
from common.inferers import RoIInferer, RoITrainingInferer
from common.networks.ru_net import RUNet, RUNetEnsemble


def spots(*places, shape=(8, 32, 40), items=1):
    """Dark volumes and labels with bright voxels: ``(item, z, y, x)`` is the first of 2x4x4, or of what is left."""
    volume = torch.full((items, 1, *shape), 0.1)
    for item, *place in places:
        volume[(item, 0, *(slice(first, first + step) for first, step in zip(place, (2, 4, 4))))] = 1
    return volume


def target_of(label):
    """Label and a second channel that no box may come from."""
    return torch.cat([label, torch.ones_like(label)], dim=1)


def boxes_of(heat, threshold=0.5, margin=(1, 2, 2), top=2, size=(8, 32, 40)):
    """Slow boxes of a map d h w in voxels, cut at the border."""
    scaled = []
    for axes in slow_boxes(heat, threshold, margin, top):
        start = tuple(axis.start * step for axis, step in zip(axes, (2, 4, 4)))
        stop = tuple(min(axis.stop * step, end) for axis, step, end in zip(axes, (2, 4, 4), size))
        scaled.append(Box(start, stop))
    return scaled


NOTHING = torch.zeros(1, 2, 8, 32, 40)
DARK = spots()


@pytest.mark.parametrize("shape", [(8, 32, 40), (7, 30, 37), (1, 29, 33)])
@pytest.mark.parametrize("settings", [dict(), dict(top=1), dict(margin=0), dict(normalise_heat=True, top=None)])
def test_boxes_are_those_of_the_own_heat_map_and_regions_their_logits(shape, settings):
    last = [length - 1 for length in shape]
    volumes = spots((0, 0, 4, 8), (0, *last), (1, 0, 20, 20), (1, 0, 24, 20), (1, 0, 0, 32), shape=shape, items=2)
    member = Member()
    prediction = RoITrainingInferer(**settings)(volumes, member, torch.zeros(2, 2, *shape))
    features = member.encode(pad_to_cells(volumes))
    torch.testing.assert_close(prediction.heat, member.locate(features[-1]))
    margin = (settings.get("margin", (1, 2, 2)),) * 3 if "margin" in settings else (1, 2, 2)
    expected = []
    for item, heat in enumerate(prediction.heat.sigmoid().detach().numpy()):
        heat = (heat - heat.min()) / np.ptp(heat) if settings.get("normalise_heat") else heat
        expected += [(item, box) for box in boxes_of(heat[0], 0.5, margin, settings.get("top", 2), shape)]
    assert prediction.boxes == expected and {item for item, _ in expected} == {0, 1}
    assert len(prediction.regions) == len(prediction.contours) == len(expected)
    for (item, box), region, contour in zip(*prediction[1:]):
        cells = [slice(a // step, -(-b // step)) for a, b, step in zip(*box, (2, 4, 4))]
        crops = [
            feature[(slice(item, item + 1), ..., *(slice(c.start * n, c.stop * n) for c, n in zip(cells, stride)))]
            for feature, stride in zip(features, ((2, 4, 4), (2, 2, 2), (1, 1, 1)))
        ]
        inside = (..., *(slice(length) for length in box.size))
        for found, head in zip((region, contour), member.decode(*crops)):
            assert found.shape == (1, 1, *box.size)
            torch.testing.assert_close(found, head[inside])


def test_regions_lie_where_their_boxes_say():
    volumes = spots((0, 5, 11, 13), (0, 2, 28, 36), (1, 0, 0, 0), items=2)
    prediction = RoITrainingInferer()(volumes, Marker(), NOTHING.expand(2, -1, -1, -1, -1))
    assert len(prediction.boxes) == 3
    for (item, box), region in zip(prediction.boxes, prediction.regions):
        assert torch.equal(region[0, 0] > 0, volumes[(item, 0, *box.slices)] == 1)
        assert (region > 0).any()


def test_training_and_inference_agree():
    """Region by region the training logits are what the inferer writes."""
    volumes = spots((0, 3, 8, 8), (0, 6, 28, 33), shape=(7, 31, 38))
    torch.manual_seed(0)
    network = RUNetEnsemble(variants=["RF64"], width=2).eval()
    settings = dict(normalise_heat=True, threshold=0.8, margin=(0, 1, 1), top=4)
    answer = RoIInferer(**settings)(volumes, network)
    prediction = RoITrainingInferer(**settings, ground_truth="never")(volumes, network.members["RF64"])
    sums, counts = torch.zeros(7, 31, 38), torch.zeros(7, 31, 38)
    for (_, box), region in zip(prediction.boxes, prediction.regions):
        sums[box.slices] += region[0, 0].sigmoid().detach()
        counts[box.slices] += 1
    torch.testing.assert_close(answer[0, 0], sums / counts.clamp(min=1))
    assert prediction.boxes and answer.any()


LABEL = spots((0, 4, 4, 4), (0, 0, 24, 32), (0, 0, 28, 32))
TRUE = boxes_of(pooled_label(LABEL > 0.5)[0, 0].numpy())


@pytest.mark.parametrize(
    "ground_truth, seen, expected",
    [
        ("missing", DARK, TRUE),
        ("never", DARK, []),
        ("always", DARK, TRUE),
        ("missing", spots((0, 4, 16, 20)), [Box((2, 8, 12), (8, 28, 32))]),
        ("never", spots((0, 4, 16, 20)), [Box((2, 8, 12), (8, 28, 32))]),
        ("always", spots((0, 4, 16, 20)), [Box((2, 8, 12), (8, 28, 32)), *TRUE]),
        ("always", LABEL, TRUE),
    ],
    ids=["missing-dark", "never-dark", "always-dark", "missing-seen", "never-seen", "always-seen", "once"],
)
def test_when_the_ground_truth_joins(ground_truth, seen, expected):
    prediction = RoITrainingInferer(ground_truth=ground_truth)(seen, Member(), target_of((LABEL > 0.5).float()))
    assert prediction.boxes == [(0, box) for box in expected]
    assert [tuple(region.shape[2:]) for region in prediction.regions] == [box.size for box in expected]


@pytest.mark.parametrize("normalise_heat, expected", [(False, []), (True, [(0, Box((2, 8, 12), (8, 28, 32)))])])
def test_a_faint_heat_map_has_a_region_only_when_normalised(normalise_heat, expected):
    faint = 0.3 * spots((0, 4, 16, 20))
    inferer = RoITrainingInferer(normalise_heat=normalise_heat, ground_truth="never")
    assert inferer(faint, Member()).boxes == expected


def test_the_largest_parts_of_the_label_are_taken():
    assert len(TRUE) == 2
    target = target_of((LABEL > 0.5).to(torch.uint8))
    assert RoITrainingInferer(top=1)(DARK, Member(), target).boxes == [(0, TRUE[0])]
    assert TRUE[0].stop[2] == 40  # of two cells, against one


def test_each_volume_of_a_batch_asks_for_itself():
    volumes = torch.cat([DARK, spots((0, 4, 16, 20)), DARK])
    targets = torch.cat([NOTHING, target_of(LABEL > 0.5), target_of(LABEL > 0.5)])
    boxes = RoITrainingInferer()(volumes, Member(), targets).boxes
    assert boxes == [(1, Box((2, 8, 12), (8, 28, 32))), *((2, box) for box in TRUE)]


def test_nothing_found_and_nothing_to_find_leaves_the_heat_map():
    prediction = RoITrainingInferer()(DARK, Member(), NOTHING)
    assert prediction.heat.shape == (1, 1, 4, 8, 10) and prediction[1:] == ([], [], [])


def test_a_heat_map_of_nan_is_no_region():
    prediction = RoITrainingInferer()(DARK, Member(gain=float("nan")), target_of(LABEL > 0.5))
    assert prediction.boxes == [(0, box) for box in TRUE] and prediction.heat.isnan().all()


@pytest.mark.parametrize("shape", [(8, 32, 40), (5, 30, 37)])
def test_none_decodes_nothing_and_whole_asks_no_locator(shape):
    class Blind(Member):
        def locate(self, f3):
            raise AssertionError

    volumes = spots((0, 0, 0, 0), (1, 2, 20, 20), shape=shape, items=2)
    member = Member()
    heat, *rest = RoITrainingInferer(rois="none", ground_truth="always")(volumes, member)
    assert tuple(heat.shape[2:]) == tuple(-(-n // step) for n, step in zip(shape, (2, 4, 4)))
    assert rest == [[], [], []] and not member.decoded

    heat, boxes, regions, contours = RoITrainingInferer(rois="whole")(volumes, Blind())
    assert heat is None and boxes == [(item, Box((0, 0, 0), shape)) for item in range(2)]
    assert all(part.shape == (1, 1, *shape) for part in (*regions, *contours))


class TestGradients:
    def build(self):
        torch.manual_seed(0)
        volume = spots((0, 2, 8, 8), (0, 4, 24, 32)) + 0.05 * torch.rand(1, 1, 8, 32, 40)
        return RUNet("RF64", width=2), volume, target_of((volume > 0.5).float())

    def test_they_run_through_the_features_as_with_boxes_given(self):
        network, volume, target = self.build()
        prediction = RoITrainingInferer(normalise_heat=True, threshold=0.9, ground_truth="always")(
            volume, network, target
        )
        assert len(prediction.boxes) >= 2
        loss = sum(region.square().mean() + contour.mean() for region, contour in zip(*prediction[2:]))
        found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)

        f1, f2, f3 = network.encode(volume)
        expected = 0
        for _, box in prediction.boxes:
            (z, y, x), (zz, yy, xx) = box
            region, contour = network.decode(
                f1[:, :, z:zz, y:yy, x:xx],
                f2[:, :, z:zz, y // 2 : yy // 2, x // 2 : xx // 2],
                f3[:, :, z // 2 : zz // 2, y // 4 : yy // 4, x // 4 : xx // 4],
            )
            expected = expected + region.square().mean() + contour.mean()
        wanted = torch.autograd.grad(expected, list(network.parameters()), allow_unused=True)
        for (name, _), gradient, other in zip(network.named_parameters(), found, wanted):
            # the choice of boxes is no step that a gradient could take
            assert (gradient is None) == name.startswith("locator."), name
            if gradient is not None:
                torch.testing.assert_close(gradient, other)
                assert gradient.any() or name.endswith("bias"), name  # normalised away

    def test_the_heat_map_trains_locator_and_encoder_alone(self):
        network, volume, target = self.build()
        RoITrainingInferer(rois="none")(volume, network, target).heat.mean().backward()
        reached = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
        assert reached == {"encoder", "locator"}

    def test_inputs_and_targets_are_left_as_they_were(self):
        network, volume, target = self.build()
        before = volume.clone(), target.clone()
        RoITrainingInferer(ground_truth="always")(volume, network, target)
        assert torch.equal(volume, before[0]) and torch.equal(target, before[1])

    def test_metatensors_give_plain_logits(self):
        network, volume, target = self.build()
        inferer = RoITrainingInferer(ground_truth="always")
        plain, meta = inferer(volume, network, target), inferer(MetaTensor(volume), network, MetaTensor(target))
        assert meta.boxes == plain.boxes and type(meta.heat) is torch.Tensor
        assert all(type(region) is torch.Tensor for region in meta.regions)
        torch.testing.assert_close(meta.regions, plain.regions)

    def test_mixed_precision_stays_the_networks(self):
        network, volume, target = self.build()
        with torch.autocast("cpu", torch.bfloat16):
            prediction = RoITrainingInferer(ground_truth="always")(volume, network, target)
        assert prediction.heat.dtype == prediction.regions[0].dtype == torch.bfloat16
        sum(region.float().mean() for region in prediction.regions).backward()
        assert all(p.grad.isfinite().all() for p in network.decoder.parameters() if p.grad is not None)

    @pytest.mark.gpu
    def test_gpu_agrees(self):
        network, volume, target = self.build()
        inferer = RoITrainingInferer(ground_truth="always", normalise_heat=True, threshold=0.9)
        expected = inferer(volume, network, target)
        found = inferer(volume.cuda(), network.cuda(), target.cuda())
        assert found.boxes == expected.boxes and found.regions[0].is_cuda
        torch.testing.assert_close([r.cpu() for r in found.regions], expected.regions, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "settings, text",
    [
        (dict(rois="all"), "rois is 'all': it must be one of located, whole, none"),
        (dict(ground_truth="allways"), "ground_truth is 'allways': .*use 'always'"),
        (dict(threshold=2), "threshold of 2"),
        (dict(margin=-1), "margin of -1"),
        (dict(top=0), "top=0"),
    ],
)
def test_other_arguments_are_refused(settings, text):
    with pytest.raises(InputError, match=text):
        RoITrainingInferer(**settings)


@pytest.mark.parametrize("targets", [None, torch.zeros(1, 2, 8, 32, 36), torch.zeros(1, 8, 32, 40)])
def test_targets_that_do_not_fit_are_refused(targets):
    shape = None if targets is None else tuple(targets.shape)
    text = re.escape(f"targets of {shape} for volumes of (8, 32, 40) voxels")
    with pytest.raises(InputError, match=f"{text}.*a label of the same size.*ground_truth='never'"):
        RoITrainingInferer()(DARK, Member(), targets)


def test_inputs_of_another_shape_are_refused():
    with pytest.raises(InputError, match="volumes come as B 1 D H W"):
        RoITrainingInferer()(torch.zeros(1, 3, 4, 8, 8), Member())
