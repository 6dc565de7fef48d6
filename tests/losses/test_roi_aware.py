"""The RoI-aware loss, against sums over the voxels one by one."""

from __future__ import annotations

import math

import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.geometry.boxes import Box
from common.losses import RoIAwareLoss, SampledBCELoss
from common.networks.rois import RoIPrediction

SIZE = (5, 9, 14)  # no multiple of a cell along any axis
CELLS = (3, 3, 4)
BOXES = [(0, Box((0, 0, 4), (2, 8, 12))), (1, Box((2, 4, 8), (6, 12, 16))), (0, Box((0, 4, 4), (4, 8, 8)))]


def example(boxes=BOXES, size=SIZE, cells=CELLS) -> tuple[RoIPrediction, torch.Tensor]:
    """Predictions of a batch of two, double precision; the second box reaches beyond the volume on three sides."""
    draw = torch.Generator().manual_seed(5)

    def logits(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()

    target = (torch.rand(2, 2, *size, generator=draw) < 0.03).to(torch.uint8)
    target[0, :, :3, 2:7, 5:9] = 1
    regions = [logits(1, 1, *box.size) for _, box in boxes]
    contours = [logits(1, 1, *box.size) for _, box in boxes]
    return RoIPrediction(logits(2, 1, *cells), list(boxes), regions, contours), target


def dice(pairs: list[tuple[float, float]], smooth: float) -> float:
    probabilities = [(1 / (1 + math.exp(-logit)), truth) for logit, truth in pairs]
    both = sum(p * g for p, g in probabilities)
    return 1 - (2 * both + smooth) / (sum(p + g for p, g in probabilities) + smooth)


def of_cells(prediction: RoIPrediction, target: torch.Tensor) -> list[tuple[float, float]]:
    pairs = []
    for b, *place in torch.cartesian_prod(*[torch.arange(n) for n in (2, *CELLS)]).tolist():
        block = tuple(slice(i * size, (i + 1) * size) for i, size in zip(place, (2, 4, 4), strict=True))
        pairs.append((prediction.heat[(b, 0, *place)].item(), float(target[(b, 0, *block)].max())))
    return pairs


def of_rois(logits: list[torch.Tensor], boxes, target: torch.Tensor, channel: int) -> list[tuple[float, float]]:
    pairs = []
    for roi, (item, box) in zip(logits, boxes, strict=True):
        for place in torch.cartesian_prod(*[torch.arange(n) for n in box.size]).tolist():
            voxel = [start + i for start, i in zip(box.start, place, strict=True)]
            if all(v < n for v, n in zip(voxel, target.shape[2:], strict=True)):
                pairs.append((roi[(0, 0, *place)].item(), float(target[(item, channel, *voxel)])))
    return pairs


@pytest.mark.parametrize("lambda_contour", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smooth", [1e-4, 1.0])
def test_voxel_by_voxel(lambda_contour, smooth):
    prediction, target = example()
    expected = (
        dice(of_cells(prediction, target), smooth)
        + dice(of_rois(prediction.regions, BOXES, target, 0), smooth)
        + lambda_contour * dice(of_rois(prediction.contours, BOXES, target, 1), smooth)
    )
    found = RoIAwareLoss(lambda_contour=lambda_contour, smooth=smooth)(prediction, target)
    assert found.item() == pytest.approx(expected, rel=1e-6)  # the truth of the heat map is pooled in float32


@pytest.mark.parametrize("criterion, selection", [("sampled", "random"), ("ohem", "hardest")])
def test_the_other_criteria_change_the_locators_part_alone(criterion, selection):
    prediction, target = example()
    pairs = of_cells(prediction, target)
    truth = torch.tensor([truth for _, truth in pairs]).reshape(prediction.heat.shape)
    without = RoIAwareLoss()(prediction._replace(heat=None), target)
    torch.manual_seed(1)
    found = RoIAwareLoss(criterion)(prediction, target)
    torch.manual_seed(1)
    expected = SampledBCELoss(3, selection)(prediction.heat, truth) + without
    torch.testing.assert_close(found, expected)


def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_all():
    prediction, target = example()
    perfect, wrong = [], []
    for sign, parts in ((1, perfect), (-1, wrong)):
        cells = torch.tensor([truth for _, truth in of_cells(prediction, target)]).reshape(prediction.heat.shape)
        padded = torch.nn.functional.pad(target, (0, 2, 0, 3, 0, 1)).double()
        rois = [[padded[(item, c, *box.slices)][None, None] for item, box in BOXES] for c in (0, 1)]
        parts += [sign * 80 * (cells - 0.5), *[[sign * 80 * (roi - 0.5) for roi in of] for of in rois]]
    loss = RoIAwareLoss(lambda_contour=0.5)
    assert loss(RoIPrediction(perfect[0], BOXES, *perfect[1:]), target).item() == pytest.approx(0, abs=1e-6)
    assert loss(RoIPrediction(wrong[0], BOXES, *wrong[1:]), target).item() == pytest.approx(2.5, abs=1e-4)


def test_one_box_around_everything_is_the_plain_dice_loss():
    everything = [(b, Box((0, 0, 0), SIZE)) for b in (0, 1)]
    prediction, target = example(everything)
    pairs = list(zip(torch.cat(prediction.regions).flatten().tolist(), target[:, 0].flatten().tolist(), strict=True))
    found = RoIAwareLoss(lambda_contour=0)(prediction._replace(heat=None), target)
    assert found.item() == pytest.approx(dice(pairs, 1e-4), rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 1, 1), (2, 4, 4), (3, 5, 6)])
def test_small_and_odd_volumes(shape):
    cells = tuple(-(-n // size) for n, size in zip(shape, (2, 4, 4), strict=True))
    whole = Box((0, 0, 0), tuple(n * size for n, size in zip(cells, (2, 4, 4), strict=True)))
    prediction, _ = example([(1, whole)], shape, cells)
    target = torch.zeros(2, 2, *shape)
    target[1, :, -1, -1, -1] = 1  # the last voxel must reach the last cell
    heat = torch.full((2, 1, *cells), -60.0)
    heat[1, 0, -1, -1, -1] = 60.0
    assert RoIAwareLoss()(prediction._replace(heat=heat, boxes=[]), target).item() == pytest.approx(0, abs=1e-6)
    pairs = of_rois(prediction.regions, [(1, whole)], target, 0)
    assert len(pairs) == math.prod(shape)
    found = RoIAwareLoss(lambda_contour=0)(prediction._replace(heat=None), target)
    assert found.item() == pytest.approx(dice(pairs, 1e-4), rel=1e-9)


def test_nothing_outside_the_volume_is_learnt_from():
    prediction, target = example()
    RoIAwareLoss()(prediction, target).backward()
    for logits in (prediction.regions[1], prediction.contours[1]):
        inside = torch.zeros(logits.shape, dtype=torch.bool)
        inside[..., :3, :5, :6] = True
        assert torch.equal(logits.grad != 0, inside)
    assert all((logits.grad != 0).all() for logits in [prediction.heat, *prediction.regions[::2]])


@pytest.mark.parametrize("criterion", ["dice", "sampled", "ohem"])
@pytest.mark.parametrize("logit", [-1000.0, 0.0, 1000.0])
@pytest.mark.parametrize("truth", [0, 1])
def test_empty_and_full_targets_with_saturated_predictions_stay_finite(criterion, logit, truth):
    _, target = example()
    target.fill_(truth)

    def constant(*shape: int) -> torch.Tensor:
        return torch.full(shape, logit, requires_grad=True)

    sizes = [(1, 1, *box.size) for _, box in BOXES]
    prediction = RoIPrediction(
        constant(2, 1, *CELLS), BOXES, [constant(*s) for s in sizes], [constant(*s) for s in sizes]
    )
    value = RoIAwareLoss(criterion)(prediction, target)
    value.backward()
    assert value.isfinite()
    assert all(x.grad.isfinite().all() for x in [prediction.heat, *prediction.regions, *prediction.contours])
    if (logit > 0) == bool(truth) and logit != 0:
        assert value.item() == pytest.approx(0, abs=1e-6)


def test_parts_that_are_missing_are_left_out():
    prediction, target = example()
    loss = RoIAwareLoss()
    heat_alone = RoIPrediction(prediction.heat, [], [], [])
    rois_alone = prediction._replace(heat=None)
    torch.testing.assert_close(
        loss(heat_alone, target) + loss(rois_alone, target), loss(prediction, target), rtol=1e-6, atol=0
    )
    without_contours = prediction._replace(contours=[])
    torch.testing.assert_close(
        RoIAwareLoss(lambda_contour=0)(without_contours, target), RoIAwareLoss(lambda_contour=0)(prediction, target)
    )


def test_nothing_at_all_gives_a_zero_that_can_go_backward():
    _, target = example()
    value = RoIAwareLoss()(RoIPrediction(None, [], [], []), target)
    assert value.item() == 0 and value.ndim == 0
    value.backward()


def test_gradcheck():
    prediction, target = example(BOXES[1:])

    def value(heat, *rois):
        return RoIAwareLoss()(RoIPrediction(heat, BOXES[1:], list(rois[:2]), list(rois[2:])), target)

    assert torch.autograd.gradcheck(value, (prediction.heat, *prediction.regions, *prediction.contours))


def test_half_precision_logits_are_widened():
    prediction, target = example()
    half = RoIPrediction(
        prediction.heat.half(), BOXES, [r.half() for r in prediction.regions], [c.half() for c in prediction.contours]
    )
    wide = RoIPrediction(
        half.heat.float(), BOXES, [r.float() for r in half.regions], [c.float() for c in half.contours]
    )
    with torch.autocast("cpu", torch.bfloat16):
        value = RoIAwareLoss()(half, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, RoIAwareLoss()(wide, target), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32])
def test_metatensors_and_label_types(dtype):
    prediction, target = example()
    meta = RoIPrediction(MetaTensor(prediction.heat), BOXES, [MetaTensor(r) for r in prediction.regions], [])
    value = RoIAwareLoss(lambda_contour=0)(meta, MetaTensor(target.to(dtype)))
    assert type(value) is torch.Tensor
    torch.testing.assert_close(value, RoIAwareLoss(lambda_contour=0)(prediction, target))


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"locator_criterion": "focal"}, "locator_criterion is 'focal': it must be one of dice, sampled, ohem"),
        ({"lambda_contour": -0.5}, "lambda_contour is -0.5: it must be a number and not below 0"),
        ({"lambda_contour": float("nan")}, "lambda_contour is nan"),
        ({"smooth": 0.0}, "smooth is 0.0: it must be above 0, or regions without foreground"),
        ({"cell": (2, 0, 4)}, r"cell is \(2, 0, 4\): a cell has at least one voxel"),
    ],
)
def test_useless_arguments_are_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        RoIAwareLoss(**arguments)


def test_wrong_shapes_are_named():
    prediction, target = example()
    loss = RoIAwareLoss()
    for wrong in (target[:, :1], target[:, 0]):
        with pytest.raises(InputError, match=r"the target has shape \(2, .*label and contour.*AppendContourd"):
            loss(prediction, wrong)
    with pytest.raises(InputError, match=r"heat map has shape \(2, 1, 3, 3, 3\) for a volume of \(5, 9, 14\).*\(2, 4"):
        loss(prediction._replace(heat=prediction.heat[..., :3]), target)
    with pytest.raises(InputError, match="3 boxes and 2 predictions.*each box needs one of each"):
        loss(prediction._replace(contours=prediction.contours[:2]), target)
    cells = [(item, Box(box.start, (3, 3, 3))) for item, box in BOXES]
    with pytest.raises(InputError, match=r"an RoI of \(3, 3, -1\) voxels has logits .*\(1, 1, 2, 8, 8\).*not cells"):
        loss(prediction._replace(boxes=cells), target)


@pytest.mark.gpu
@pytest.mark.parametrize("criterion", ["dice", "ohem"])
def test_gpu_agrees_without_waiting(criterion):
    prediction, target = example()
    expected = RoIAwareLoss(criterion)(prediction, target)

    def moved(logits: list[torch.Tensor]) -> list[torch.Tensor]:
        return [x.detach().cuda().requires_grad_() for x in logits]

    device = RoIPrediction(moved([prediction.heat])[0], BOXES, moved(prediction.regions), moved(prediction.contours))
    device_target = target.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = RoIAwareLoss(criterion)(device, device_target)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), expected)
    assert all(x.grad.isfinite().all() for x in [device.heat, *device.regions, *device.contours])
