"""Projections and back-projection against brute force, SciPy and what their mathematics demand."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.checks import InputError
from common.geometry import ray_sums
from common.geometry.projection import (
    back_project,
    check_angles,
    detector_width,
    direction_angles,
    project,
    ramp_filter,
    sector_angles,
)

ANGLES = [0.0, 3.0, 17.5, 30.0, 45.0, 60.0, 89.0, 90.0, 91.0, 120.0, 133.0, 135.0, 150.0, 179.0]
PLANES = [(9, 12), (12, 9), (8, 8), (1, 7), (6, 1), (1, 1), (2, 2), (24, 33), (20, 70)]


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    """Values around -3, of which few are positive."""
    return torch.randn(shape, dtype=dtype, generator=torch.manual_seed(seed)) - 3


def slow_maximum(plane: np.ndarray, angle: float, width: int) -> list[float]:
    """One ray after the other, one sample after the other."""
    size_a, size_c = plane.shape
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    result = []
    for w in range(width):
        s, highest = w - (width - 1) / 2, -math.inf
        for step in range(-size_a - size_c, size_a + size_c + 1):
            t = step + (size_a - 1) % 2 / 2
            a, c = s * sin + t * cos + (size_a - 1) / 2, s * cos - t * sin + (size_c - 1) / 2
            if not (-1e-6 <= a <= size_a - 1 + 1e-6 and -1e-6 <= c <= size_c - 1 + 1e-6):
                continue
            near = [(i, j) for i in range(size_a) if abs(a - i) < 1 for j in range(size_c) if abs(c - j) < 1]
            highest = max(highest, sum(plane[i, j] * (1 - abs(a - i)) * (1 - abs(c - j)) for i, j in near))
        result.append(0.0 if highest == -math.inf else highest)
    return result


def slow_matrix(angles: list[float], size_a: int, size_c: int, width: int) -> np.ndarray:
    """The linear back-projection of a plane as a matrix (A C, D W), one voxel after the other."""
    matrix = np.zeros((size_a, size_c, len(angles), width))
    for d, angle in enumerate(angles):
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        for a in range(size_a):
            for c in range(size_c):
                s = (c - (size_c - 1) / 2) * cos + (a - (size_a - 1) / 2) * sin + (width - 1) / 2
                for w in range(width):
                    matrix[a, c, d, w] = max(0.0, 1 - abs(s - w))
    return matrix.reshape(size_a * size_c, len(angles) * width)


@pytest.mark.parametrize("detector", ["cropped", "full"])
@pytest.mark.parametrize(("size_a", "size_c"), PLANES)
def test_maximum_equals_one_ray_after_the_other(size_a, size_c, detector):
    plane = noise(size_a, size_c)
    width = detector_width(size_a, size_c, detector)
    expected = [slow_maximum(plane.numpy(), angle, width) for angle in ANGLES]
    found = project(plane[None, None, :, None], ANGLES, "max", detector)
    assert found.shape == (1, len(ANGLES), 1, 1, width)
    np.testing.assert_allclose(found[0, :, 0, 0].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("detector", ["cropped", "full"])
@pytest.mark.parametrize(("size_a", "size_c"), PLANES)
def test_sum_and_back_projection_equal_the_matrix_and_its_transpose(size_a, size_c, detector):
    width = detector_width(size_a, size_c, detector)
    matrix = slow_matrix(ANGLES, size_a, size_c, width)
    plane, images = noise(size_a, size_c), noise(len(ANGLES), width, seed=1)
    summed = project(plane[None, None, :, None], ANGLES, "sum", detector)[0, :, 0, 0]
    np.testing.assert_allclose(summed.flatten().numpy(), plane.flatten().numpy() @ matrix, atol=1e-9)
    spread = back_project(images[None, :, None, None], ANGLES, size_a, size_c)[0, 0, :, 0]
    np.testing.assert_allclose(spread.flatten().numpy(), matrix @ images.flatten().numpy(), atol=1e-9)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("detector", ["cropped", "full"])
@pytest.mark.parametrize(("size_a", "size_c"), [(96, 57), (31, 130)])
def test_sum_is_the_adjoint_of_back_projection(size_a, size_c, detector, dtype, bound):
    angles = [1.7 + 2.9 * k for k in range(60)]
    volume = noise(2, 2, size_a, 3, size_c, dtype=dtype) + 3
    projections = project(volume, angles, "sum", detector)
    images = torch.randn(projections.shape, dtype=dtype, generator=torch.manual_seed(1))
    one = torch.sum(projections.double() * images.double())
    other = torch.sum(volume.double() * back_project(images, angles, size_a, size_c).double())
    assert abs(one - other) < bound * projections.double().norm() * images.double().norm()


@pytest.mark.parametrize("detector", ["cropped", "full"])
@pytest.mark.parametrize("scripted", [False, True])
def test_gradients(detector, scripted):
    angles, size_a, size_c = [0.0, 20.0, 90.0, 131.0], 3, 4
    run, run_back = (torch.jit.script(project), torch.jit.script(back_project)) if scripted else (project, back_project)
    volume = noise(1, 2, size_a, 1, size_c).requires_grad_()
    for mode in ("max", "sum"):
        assert torch.autograd.gradcheck(lambda x, mode=mode: run(x, angles, mode, detector), volume)
    images = noise(1, 4, 2, 1, detector_width(size_a, size_c, detector)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: run_back(x, angles, size_a, size_c), images)
    if not scripted:
        assert torch.autograd.gradgradcheck(lambda x: back_project(x.square(), angles, size_a, size_c), images)


def test_gradients_keep_no_samples():
    """The maximum keeps where it was, and back-projection keeps nothing at all."""
    volume = torch.rand(1, 1, 32, 16, 40, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.numel() * x.element_size()) or x, lambda x: x
    ):
        images = project(volume, [40.0])
        assert sum(kept) < 0.6 * 4 * 1280 * 16 * volume.element_size()  # of four rows a sample
        kept.clear()
        back_project(project(volume, [40.0], "sum"), [40.0], 32, 40)
        assert sum(kept) == 0
    images.sum().backward()
    assert volume.grad.sum() == pytest.approx(images.numel(), rel=1e-4)


@pytest.mark.parametrize("mode", ["max", "sum"])
def test_theta_0_looks_along_the_first_axis(mode):
    volume = noise(2, 3, 7, 4, 10)
    expected = volume.amax(2) if mode == "max" else volume.sum(2)
    torch.testing.assert_close(project(volume, [0.0], mode)[:, 0], expected, rtol=0, atol=1e-12)
    full = project(volume, [0.0], mode, "full")[:, 0]
    margin = (full.shape[-1] - 10) // 2
    torch.testing.assert_close(full[..., margin : margin + 10], expected, rtol=0, atol=1e-12)
    assert not full[..., :margin].any() and not full[..., margin + 10 :].any()


@pytest.mark.parametrize("mode", ["max", "sum"])
@pytest.mark.parametrize(("size_a", "size_c"), [(9, 13), (8, 12), (10, 6), (7, 7)])
def test_a_volume_turned_by_90_degrees(size_a, size_c, mode):
    """Turned so that what lay along a lies along c, it looks from theta as it did from theta + 90."""
    volume = noise(1, 2, size_a, 3, size_c)
    turned = torch.rot90(volume, 1, (2, 4))
    for angle in [0.0, 13.0, 45.0, 77.0]:
        before, after = (project(v, [at], mode, "full") for v, at in ((volume, angle + 90), (turned, angle)))
        torch.testing.assert_close(after, before, rtol=0, atol=1e-9)
    along_c = volume.amax(4) if mode == "max" else volume.sum(4)
    image = project(volume, [90.0], mode, "full")[:, 0]
    margin = (image.shape[-1] - size_a) // 2
    torch.testing.assert_close(image[..., margin : margin + size_a], along_c.transpose(2, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["max", "sum"])
@pytest.mark.parametrize("detector", ["cropped", "full"])
def test_the_opposite_direction_is_the_mirror_image(mode, detector):
    volume = noise(1, 1, 11, 2, 14)
    here = project(volume, ANGLES, mode, detector)
    there = project(volume, [angle + 180 for angle in ANGLES], mode, detector)
    torch.testing.assert_close(there, here.flip(-1), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("size_a", "size_c"), [(21, 35), (40, 18), (25, 25)])
def test_a_point_goes_where_geometry_says(size_a, size_c):
    angles = [180 / 37 * k for k in range(37)]
    width = detector_width(size_a, size_c, "full")
    for a, c in [(0, 0), (size_a - 1, 0), (3, size_c - 1), (size_a // 2, size_c // 3)]:
        volume = torch.zeros(1, 1, size_a, 3, size_c, dtype=torch.float64)
        volume[0, 0, a, 1, c] = 1
        for mode in ("max", "sum"):
            images = project(volume, angles, mode, "full")[0, :, 0]
            assert not images[:, 0].any() and not images[:, 2].any()
            for image, angle in zip(images[:, 1], angles, strict=True):
                turn = math.radians(angle)
                s = (c - (size_c - 1) / 2) * math.cos(turn) + (a - (size_a - 1) / 2) * math.sin(turn) + (width - 1) / 2
                hit = image.nonzero().flatten()
                assert hit.numel() or mode == "max"  # samples at unit steps may all pass a corner voxel by
                assert ((hit - s).abs() < (1 if mode == "sum" else math.sqrt(2))).all()
                if mode == "sum":
                    assert (image * torch.arange(width)).sum() == pytest.approx(s, abs=1e-9)


@pytest.mark.parametrize("mode", ["max", "sum"])
@pytest.mark.parametrize(("rotation_axis", "order"), [(0, (3, 2, 4)), (1, (2, 3, 4)), (2, (2, 4, 3))])
def test_other_axes_are_permutations(rotation_axis, order, mode):
    volume = noise(2, 1, 6, 7, 9)
    same = volume.permute(0, 1, *order)
    for detector in ("cropped", "full"):
        found = project(volume, ANGLES, mode, detector, rotation_axis)
        assert torch.equal(found, project(same, ANGLES, mode, detector))
    size_a, size_c = same.shape[2], same.shape[4]
    spread = back_project(found, ANGLES, size_a, size_c, rotation_axis)
    assert spread.shape == volume.shape
    assert torch.equal(spread.permute(0, 1, *order), back_project(found, ANGLES, size_a, size_c))


@pytest.mark.parametrize("angle", [3.0, 30.0, 45.0, 77.0, 120.0, 171.0])
def test_maximum_equals_scipy(angle):
    """SciPy turns the volume in a margin wide enough for every ray; it is 0 at the border, where the two differ."""
    size_a, size_c, width = 37, 51, 51
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, size_a), np.linspace(-1, 1, size_c), indexing="ij"))
    window = np.prod(np.clip(1 - np.abs(grid), 0, 0.3) / 0.3, 0)[:, None]
    values = ndimage.gaussian_filter(np.random.RandomState(0).rand(size_a, 5, size_c), (1, 0, 1)) * window
    padded = np.pad(values, ((10, 10), (0, 0), (0, 0)))  # as many rows beyond each end: the centre stays
    expected = ndimage.rotate(padded, angle, axes=(0, 2), reshape=False, order=1).max(0)
    found = project(torch.from_numpy(values)[None, None], [angle])[0, 0, 0].numpy()
    assert found.shape == (5, width)
    assert np.abs(found - expected).max() < 1e-3


def test_filtered_back_projection_of_a_disk_is_the_disk():
    size_a, size_c, radius, directions = 65, 81, 24, 180
    a, c = torch.meshgrid(torch.arange(size_a) - 32.0, torch.arange(size_c) - 40.0, indexing="ij")
    distance = ((a - 3).square() + (c + 5).square()).sqrt()
    disk = torch.sigmoid(4 * (radius - distance))[None, None, :, None]
    angles = direction_angles(directions)
    sums = project(disk, angles, "sum", "full")
    taps = ramp_filter(2 * sums.shape[-1] - 1)
    filtered = torch.nn.functional.conv1d(sums.reshape(-1, 1, sums.shape[-1]), taps[None, None], padding=len(taps) // 2)
    image = back_project(filtered.reshape(sums.shape), angles, size_a, size_c)[0, 0, :, 0] * math.pi / directions
    inside, outside = image[distance < radius - 3], image[distance > radius + 3]
    assert inside.mean() == pytest.approx(1, abs=0.01) and (inside - 1).abs().mean() < 0.03
    assert outside.mean() == pytest.approx(0, abs=0.01) and outside.abs().mean() < 0.03
    assert (inside.min() > 0.85) and (outside.max() < 0.15)


@pytest.mark.parametrize("mode", ["max", "sum"])
def test_lines_batches_and_channels_do_not_mix(mode):
    volume = noise(2, 3, 10, 35, 13)  # 210 columns: several pieces, the last of them filled up
    images = project(volume, ANGLES, mode)
    spread = back_project(images, ANGLES, 10, 13)
    for line in (0, 17, 34):
        one = project(volume[1:, 2:, :, line : line + 1], ANGLES, mode)
        torch.testing.assert_close(images[1:, :, 2:, line : line + 1], one)
        torch.testing.assert_close(spread[1:, 2:, :, line : line + 1], back_project(one, ANGLES, 10, 13))


def test_the_accelerators_way_on_a_processor(monkeypatch):
    """A GPU takes all rays and all columns at once; the values are the same."""
    volume = noise(1, 2, 30, 40, 71)
    expected = [project(volume, ANGLES, mode, "full") for mode in ("max", "sum")]
    monkeypatch.setattr(ray_sums, "on_accelerator", lambda device: True)
    for mode, images in zip(("max", "sum"), expected, strict=True):
        torch.testing.assert_close(project(volume, ANGLES, mode, "full"), images)
    meta = project(volume.to("meta"), ANGLES, "max", "full")
    assert meta.shape == expected[0].shape
    assert back_project(meta, ANGLES, 30, 71).shape == volume.shape


def test_negative_intensities_are_not_hidden_by_the_outside():
    volume = torch.full((1, 1, 9, 2, 20), -1000.0)
    images = project(volume, ANGLES, "max", "full")
    assert set(images.unique().tolist()) <= {-1000.0, 0.0} or (images[images != 0] + 1000).abs().max() < 1e-3
    assert (project(volume, direction_angles(5)[:2])[..., 8:12] + 1000).abs().max() < 1e-3


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.01), (torch.float16, 0.001)])
def test_half_precision_is_added_up_in_single(dtype, bound):
    volume = noise(1, 2, 20, 3, 30, dtype=torch.float32).to(dtype)
    for mode in ("max", "sum"):
        found, expected = project(volume, ANGLES, mode), project(volume.float(), ANGLES, mode)
        assert found.dtype == dtype
        assert ((found.float() - expected).abs() <= bound * expected.abs()).all()
    spread = back_project(found, ANGLES, 20, 30)
    assert spread.dtype == dtype and torch.equal(spread, back_project(found.float(), ANGLES, 20, 30).to(dtype))


def test_metadata_end_at_a_projection():
    volume = MetaTensor(noise(1, 1, 5, 3, 6))
    for mode in ("max", "sum"):
        found = project(volume, ANGLES, mode)
        assert type(found) is torch.Tensor and torch.equal(found, project(volume.as_tensor(), ANGLES, mode))
    assert type(back_project(MetaTensor(found), ANGLES, 5, 6)) is torch.Tensor


class Both(torch.nn.Module):
    """Projections and their back-projection, with a weight before them."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        angles = [33.0, 140.0]
        images = project(volume * self.weight, angles, self.mode, "full")
        return back_project(images, angles, volume.shape[2], volume.shape[4])


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("mode", ["max", "sum"])
def test_can_be_scripted_traced_and_exported(mode):
    network, volume, other = Both(mode), noise(1, 2, 4, 2, 7), noise(1, 2, 4, 2, 7, seed=1)
    network = network.double()
    expected = network(other)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(other), expected)
    torch.testing.assert_close(torch.jit.trace(network, volume)(other), expected)
    torch.testing.assert_close(torch.export.export(network, (volume,)).module()(other), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["max", "sum"])
def test_gpu_agrees(mode):
    volume = noise(2, 2, 20, 7, 33).requires_grad_()
    there = volume.detach().cuda().requires_grad_()
    expected, found = project(volume, ANGLES, mode, "full"), project(there, ANGLES, mode, "full")
    torch.testing.assert_close(found.cpu(), expected)
    spread = back_project(found, ANGLES, 20, 33)
    torch.testing.assert_close(spread.cpu(), back_project(expected, ANGLES, 20, 33))
    spread.square().sum().backward()
    back_project(expected, ANGLES, 20, 33).square().sum().backward()
    torch.testing.assert_close(there.grad.cpu(), volume.grad)


def test_detector_width():
    assert detector_width(96, 224) == detector_width(96, 224, "cropped") == 224
    for size_a in range(1, 40, 3):
        for size_c in range(1, 40):
            width = detector_width(size_a, size_c, "full")
            diagonal = math.hypot(size_a - 1, size_c - 1) + 1
            assert width % 2 == size_c % 2 and diagonal - 1e-6 <= width < diagonal + 2


def test_names_that_do_not_exist():
    volume = torch.zeros(1, 1, 3, 3, 3)
    with pytest.raises(ValueError, match="mode is 'mean': it must be max or sum. To mend it"):
        project(volume, [0.0], "mean")
    with pytest.raises(ValueError, match="detector is 'wide': it must be cropped or full. To mend it"):
        project(volume, [0.0], "max", "wide")
    with pytest.raises(ValueError, match="rotation_axis is 3: it must be 0, 1 or 2. To mend it"):
        project(volume, [0.0], rotation_axis=3)
    with pytest.raises(ValueError, match="2 projections came with 1 angles"):
        back_project(torch.zeros(1, 2, 1, 3, 3), [0.0], 3, 3)


def test_direction_angles():
    assert direction_angles(1) == [0.0]
    assert direction_angles(60) == [3.0 * k for k in range(60)]
    with pytest.raises(InputError, match="directions is 0: a projection needs at least one direction"):
        direction_angles(0)


@pytest.mark.parametrize("sectors", [1, 4, 7, 12, 20, 60, 100, 179, 180, 200, 500])
def test_sector_angles(sectors):
    drawn = [sector_angles(sectors, seed=3, epoch=epoch) for epoch in range(50)]
    for angles in drawn:
        assert len(angles) == sectors
        check_angles(angles, sectors)
        assert sectors > 180 or all(angle == int(angle) for angle in angles)
    assert sectors in (179, 180) or len({tuple(angles) for angles in drawn}) > 30  # 50 draws, 180 sets and more
    assert drawn[7] == sector_angles(sectors, seed=3, epoch=7)


def test_sector_angles_reach_all_of_a_sector_alike_and_leave_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    drawn = torch.tensor([sector_angles(12, seed=0, epoch=epoch) for epoch in range(3000)]).long()
    assert torch.equal(torch.get_rng_state(), before)
    counts = torch.bincount(drawn.flatten(), minlength=180)
    assert counts.min() > 140 and counts.max() < 270  # 200 expected, standard deviation 14
    assert [sector_angles(12, 1, 0), sector_angles(12, 0, 1)] != [sector_angles(12, 0, 0)] * 2


@pytest.mark.parametrize(
    ("angles", "sectors", "text"),
    [
        ([], 1, "0 angles came for 1 sectors"),
        ([0.0, 90.0, 100.0], 2, "3 angles came for 2 sectors: the number of directions must be a multiple"),
        ([180.0], 1, r"angle 0 is 180 degrees: it must lie in \[0, 180\)"),
        ([-1.0], 1, r"angle 0 is -1 degrees: it must lie in \[0, 180\)"),
        ([10.0, 89.0], 2, r"angle 1 is 89 degrees: it must lie in \[90, 180\)"),
        ([float("nan")], 1, "angle 0 is nan degrees"),
    ],
)
def test_angles_that_are_refused(angles, sectors, text):
    with pytest.raises(InputError, match=text):
        check_angles(angles, sectors)


def test_ramp_filter():
    taps = ramp_filter(5)
    assert taps.tolist() == pytest.approx([0, -1 / math.pi**2, 0.25, -1 / math.pi**2, 0])
    spectrum = torch.fft.fft(torch.fft.ifftshift(ramp_filter(801).double())).real
    frequency = torch.fft.fftfreq(801).abs()
    assert (spectrum - frequency).abs().max() < 1e-3
    with pytest.raises(InputError, match="size is 4: a ramp filter has an odd number of taps"):
        ramp_filter(4)
