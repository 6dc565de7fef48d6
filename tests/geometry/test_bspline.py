"""B-spline evaluation against SciPy's splines and against what splines must do by their mathematics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from common.checks import InputError
from common.geometry.bspline import bspline_basis, control_positions, control_shape, evaluate_bspline


def reference(controls: np.ndarray, size: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """SciPy's B-spline with uniform knots, one axis after the other."""
    field = controls
    for axis, (voxels, step) in enumerate(zip(size, spacing, strict=True)):
        knots = (np.arange(field.shape[axis + 1] + 4) - 3.0) * step
        field = BSpline(knots, np.moveaxis(field, axis + 1, 0), 3, extrapolate=True)(np.arange(voxels))
        field = np.moveaxis(field, 0, axis + 1)
    return field


@pytest.mark.parametrize(
    ("size", "spacing"),
    [((40, 33, 17), (32, 32, 32)), ((9, 1, 70), (4, 32, 7.5)), ((33, 64, 2), (32, 8, 1)), ((5, 6, 7), (0.1, 3.3, 100))],
)
def test_equals_scipy(size, spacing):
    controls = np.random.RandomState(0).normal(0, 4, (3, *control_shape(size, spacing)))
    bases = [bspline_basis(*pair) for pair in zip(size, spacing, strict=True)]
    expected = reference(controls, size, spacing)
    assert np.abs(evaluate_bspline(torch.from_numpy(controls), bases).numpy() - expected).max() < 1e-10
    single = evaluate_bspline(torch.from_numpy(controls).float(), bases)
    assert single.dtype == torch.float32 and single.shape == (3, *size)
    assert np.abs(single.numpy() - expected).max() < 1e-5


def test_equals_the_explicit_sum_at_a_voxel():
    size, spacing, voxel = (20, 11, 30), (6, 4, 9), (13, 7, 22)
    controls = torch.randn(1, *control_shape(size, spacing), dtype=torch.float64, generator=torch.manual_seed(1))

    def weight(distance):  # the cubic B-spline itself, centred at zero
        distance = abs(distance)
        return 2 / 3 - distance**2 + distance**3 / 2 if distance < 1 else max(2 - distance, 0.0) ** 3 / 6

    expected = 0.0
    for index in np.ndindex(*controls.shape[1:]):
        distances = np.array(voxel) / np.array(spacing) - (np.array(index) - 1)
        expected += controls[(0, *index)].item() * np.prod([weight(distance) for distance in distances])
    field = evaluate_bspline(controls, [bspline_basis(*pair) for pair in zip(size, spacing, strict=True)])
    assert field[(0, *voxel)].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("size", "spacing"), [(132, 32), (1, 32), (33, 32), (65, 32), (50, 0.7), (301, 0.1)])
def test_rows_sum_to_one_and_reproduce_positions(size, spacing):
    basis = bspline_basis(size, spacing)
    assert basis.shape == (size, *control_shape((size,), (spacing,)))
    assert (basis >= 0).all() and ((basis > 0).sum(1) <= 4).all()
    torch.testing.assert_close(basis.sum(1), torch.ones(size, dtype=torch.float64))
    positions = basis @ control_positions(basis.shape[1], spacing)
    torch.testing.assert_close(positions, torch.arange(size, dtype=torch.float64), rtol=0, atol=1e-9)


def test_some_rows_give_the_same_voxels():
    controls = torch.randn(3, *control_shape((20, 20, 20), (8, 8, 8)), generator=torch.manual_seed(2))
    bases = [bspline_basis(20, 8)] * 3
    part = evaluate_bspline(controls, [bases[0][3:5], bases[1][7:8], bases[2][-2:]])
    torch.testing.assert_close(part, evaluate_bspline(controls, bases)[:, 3:5, 7:8, -2:])


@pytest.mark.parametrize(("size", "spacing"), [((0, 4, 4), (2, 2, 2)), ((4, 4, 4), (2, 0, 2)), ((4,), (float("nan"),))])
def test_refuses_what_has_no_grid(size, spacing):
    with pytest.raises(InputError, match="both must be positive"):
        control_shape(size, spacing)
