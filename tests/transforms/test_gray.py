"""Random grey curves: rising, within their limits, reproducible, one per channel or one for all."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.interpolate import PchipInterpolator

from common.checks import InputError
from common.transforms.gray import RandGrayCurve, RandGrayCurved

RAMP = torch.linspace(0, 1, 4001, dtype=torch.float64).reshape(1, 1, 1, -1)


@pytest.mark.parametrize("control_points", [2, 3, 9, 17])
@pytest.mark.parametrize("slope", [(0.7, 1.3), (0.0, 6.0), (0.88, 1.12)])
def test_curves_keep_their_limits(control_points, slope):
    transform = RandGrayCurve(slope=slope, control_points=control_points).set_random_state(0)
    first, last = [], []
    for _ in range(40):
        out = transform(RAMP).flatten()
        heights = transform.curves[0]
        steps = np.diff(heights) * (control_points - 1)
        assert steps.min() >= slope[0] - 1e-9 and steps.max() <= slope[1] + 1e-9
        assert (out.diff() >= -1e-12).all()
        assert out[0] == pytest.approx(heights[0], abs=1e-9) and out[-1] == pytest.approx(heights[-1], abs=1e-9)
        first.append(float(out[0])), last.append(float(out[-1]))
        exact = PchipInterpolator(np.linspace(0, 1, control_points), heights)(RAMP.flatten().numpy())
        np.testing.assert_allclose(out.numpy(), exact, atol=1e-3)
    assert -0.02 <= min(first) < -0.01 and 0.01 < max(first) <= 0.02
    assert 0.9 <= min(last) < 0.95 and 1.05 < max(last) <= 1.1


def test_a_curve_is_smooth():
    out = RandGrayCurve().set_random_state(1)(RAMP).flatten()
    slopes = out.diff() * 4000
    assert slopes.std() > 0.05  # it bends ...
    assert slopes.diff().abs().max() < 0.1  # ... without corners: control points alone jump by up to 0.6


def test_values_outside_go_on_straight():
    transform = RandGrayCurve(slope=(0.5, 2.0)).set_random_state(2)
    out = transform(torch.tensor([[-1.0, -0.5, 0.0, 1.0, 1.5, 2.0]], dtype=torch.float64))[0]
    assert (out.diff() > 0).all()
    assert float(out[1] - out[0]) == pytest.approx(float(out[2] - out[1]))
    assert float(out[5] - out[4]) == pytest.approx(float(out[4] - out[3]))


def test_channels_have_their_own_curves_or_share_one():
    image = torch.rand(1, 5, 6, 7).expand(3, 5, 6, 7).clone()
    own = RandGrayCurve().set_random_state(0)(image)
    shared = RandGrayCurve(per_channel=False).set_random_state(0)(image)
    assert not torch.equal(own[0], own[1]) and not torch.equal(own[1], own[2])
    assert torch.equal(shared[0], shared[1]) and torch.equal(shared[1], shared[2])


def test_ranges_of_one_value_change_nothing():
    image = torch.rand(2, 4, 4, 4)
    out = RandGrayCurve(black=(0, 0), white=(1, 1), slope=(1, 1))(image)
    torch.testing.assert_close(out, image, rtol=0, atol=1e-6)


def test_types_metadata_and_input_are_kept():
    image = MetaTensor(torch.rand(1, 3, 4, 5), meta={"filename_or_obj": "a.nii"})
    before = image.clone()
    out = RandGrayCurve().set_random_state(0)(image)
    assert isinstance(out, MetaTensor) and out.meta["filename_or_obj"] == "a.nii"
    assert torch.equal(image, before) and not torch.equal(out, before)
    assert RandGrayCurve()(image.half()).dtype == torch.float16


def test_random_state_probability_and_keys():
    data = {"a": torch.rand(2, 4, 4, 4), "label": torch.ones(1, 4, 4, 4, dtype=torch.uint8)}
    data["b"] = data["a"].clone()
    transform = RandGrayCurved(["a", "b"], prob=0.5).set_random_state(0)
    results = [transform(data) for _ in range(60)]
    changed = [not torch.equal(r["a"], data["a"]) for r in results]
    assert 15 < sum(changed) < 45
    assert all(torch.equal(r["a"], r["b"]) and r["label"] is data["label"] for r in results)
    again = pickle.loads(pickle.dumps(RandGrayCurved(["a", "b"], prob=0.5))).set_random_state(0)
    np.random.seed(5)
    assert all(torch.equal(again(data)["a"], r["a"]) for r in results)
    acting = [r["a"] for r, c in zip(results, changed, strict=True) if c]
    assert not torch.equal(acting[0], acting[1])
    with pytest.raises(KeyError):
        RandGrayCurved(["a", "c"])(data)
    assert "c" not in RandGrayCurved(["a", "c"], allow_missing_keys=True)(data)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"black": (0.1, -0.1)}, r"black \(0.1, -0.1\).*lower one first"),
        ({"slope": (0.95, 1.05)}, r"span every rise from black to white, 0.88 to 1.12"),
        ({"slope": (-0.1, 2)}, "must not be negative"),
        ({"control_points": 8}, "2, 3, 5, 9, 17"),
        ({"control_points": 1}, "2, 3, 5, 9, 17"),
    ],
)
def test_arguments_out_of_range(options, text):
    with pytest.raises(InputError, match=text):
        RandGrayCurve(**options)


def test_whole_numbers_are_refused():
    with pytest.raises(InputError, match="torch.uint8.*scale the intensities"):
        RandGrayCurve()(torch.zeros(1, 2, 2, 2, dtype=torch.uint8))


def test_images_of_one_case_with_more_channels_than_curves():
    transform = RandGrayCurve().set_random_state(0)
    transform(torch.rand(1, 2, 2, 2))
    with pytest.raises(InputError, match="2 channels, curves were drawn for 1"):
        transform(torch.rand(2, 2, 2, 2), randomize=False)
