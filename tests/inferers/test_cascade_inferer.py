"""The cascade's inferer against a slow one that labels everything and cuts away afterwards."""

import json
import logging
import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch
from scipy import ndimage

from common.checks import InputError
from common.geometry.subsampling import subsample, upsample_nearest
from common.inferers import CascadeInferer, VotingInferer
from common.networks.cascade import CascadedUNet3D
from common.transforms import HounsfieldWindow

WINDOW1, WINDOW2 = ((-500.0, 500.0), (0.0, 1.0), True), ((-2000.0, 3000.0), (-1.0, 1.0), False)


class Brightness(torch.nn.Module):
    """Class 1 above one brightness, class 2 above another; double precision, so that tiles and volume agree."""

    def __init__(self, first, second, padded=False, half=False, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight = 1 / 27 + 0.01 * torch.randn((2, 1, 3, 3, 3), generator=generator, dtype=torch.float64)
        self.conv = torch.nn.Conv3d(1, 2, 3, padding=1 if padded else 0).double()
        # lines of brightness that cross at `second`
        self.conv.weight.data = 30 * weight * torch.tensor([1, 2]).reshape(2, 1, 1, 1, 1)
        self.conv.bias.data = -30 * torch.tensor([first, first + second], dtype=torch.float64)
        self.lost, self.half, self.sizes = 0 if padded else 2, half, []

    def forward(self, windows):
        self.sizes.append(tuple(windows.shape))
        scores = self.conv(windows.double())
        scores = torch.cat([torch.zeros_like(scores[:, :1]), scores], dim=1)
        return scores.bfloat16() if self.half else scores


class Cascade(torch.nn.Module):
    """Two stages, of which the second draws other borders."""

    def __init__(self, **settings):
        super().__init__()
        self.stage1 = Brightness(0.06, 0.28, **settings)
        self.stage2 = Brightness(-0.15, -0.08, seed=1, **settings)


def logged(caplog, text, level=logging.WARNING):
    return any(record.levelno == level and re.search(text, record.getMessage()) for record in caplog.records)


def torso(*shape, items=1, length=3.0, seed=0):
    """An oval body in air with two bright organs, a lung and a table; every item has its own shape."""
    rng = np.random.default_rng(seed)
    volumes = []
    for item in range(items):
        grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0.0] for n in shape), indexing="ij"))

        def ball(centre, radii, grid=grid):
            offset = grid - np.reshape(centre, (3, 1, 1, 1))
            return ((offset / np.reshape(radii, (3, 1, 1, 1))) ** 2).sum(0) < 1

        hu = np.full(shape, -1000.0)
        hu[ball((0, 0.1 * item, 0), (0.8, 0.6, length))] = 40
        hu[ball((0.3, 0, 0), (0.2, 0.25, 0.4))] = 200
        hu[ball((-0.3, 0.1, 0), (0.3, 0.3, 0.3 + 0.2 * item))] = 500
        hu[ball((-0.1, -0.35, -0.3), (0.15, 0.12, 0.3))] = -850
        hu[:, -1] = -100
        volumes.append((hu + rng.normal(0, 12, shape)).astype(np.float32))
    return torch.from_numpy(np.stack(volumes)[:, None])


def tiles_of(roi=9, **settings):
    return VotingInferer(roi, **{"overlap": 0.0, "padding_mode": "constant", **settings})


def cascade(roi=9, tiles=None, **settings):
    given = {"downsampling": 2, "body_opening": 1, "dilation": 2, **settings}
    return CascadeInferer(
        HounsfieldWindow(*WINDOW1),
        tiles_of(roi, **(tiles or {})),
        HounsfieldWindow(*WINDOW2),
        tiles_of(roi, **(tiles or {})),
        **given,
    )


def whole(stage, volume, window, body):
    """Labels of one stage for every voxel of one volume X Y Z, in one piece."""
    (low, high), (first, last), centred = window
    values = (np.clip(volume.astype(np.float64), low, high) - low) / (high - low) * (last - first) + first
    values = values - values[body].mean() if centred else values
    padded = np.pad(values, stage.lost // 2)
    return stage(torch.from_numpy(padded)[None, None].float())[0].argmax(0).numpy()


def reference(volume, network, downsampling, body_opening, dilation, body_threshold=-500.0):
    """C1, stage 1 and C2 on the working grid, and stage 2 on the fine one, for one volume X Y Z."""
    fine = volume.shape
    steps = (downsampling,) * 3 if isinstance(downsampling, int) else downsampling
    volume = volume[tuple(slice(None, None, step) for step in steps)]
    cube = np.ones((3, 3, 3))
    body = volume >= body_threshold
    if body_opening:
        body = ndimage.binary_erosion(body, cube, iterations=body_opening, border_value=1)
    parts, _ = ndimage.label(body, cube)
    body = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    if body_opening:
        body = ndimage.binary_dilation(body, cube, iterations=body_opening)
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(body, 2, 0)], axis=2)
    stage1 = whole(network.stage1, volume, WINDOW1, body) * body
    candidate = ndimage.binary_dilation(stage1 > 0, cube, iterations=dilation) if dilation else stage1 > 0
    candidate &= body
    stage2 = whole(network.stage2, volume, WINDOW2, body) * candidate

    for axis, step in enumerate(steps):
        stage2 = np.repeat(stage2, step, axis=axis)
    return (body, stage1, candidate), stage2[tuple(slice(0, length) for length in fine)]


CASES = {
    "plain": dict(),
    "odd": dict(shape=(37, 29, 51)),
    "not-downsampled": dict(shape=(21, 18, 23), downsampling=1),
    "anisotropic": dict(shape=(36, 30, 17), downsampling=(2, 2, 1), roi=(8, 7, 5)),
    "one-slice": dict(shape=(37, 30, 1), downsampling=(2, 2, 1)),
    "one-slice-halved": dict(shape=(37, 30, 1)),
    "smaller-than-a-window": dict(shape=(29, 30, 21), roi=(20, 22, 24), dilation=1),
    "flat-windows": dict(roi=(12, 14, 3)),
    "dilation-0": dict(dilation=0),
    "dilation-4": dict(dilation=4, shape=(60, 64, 40)),
    "opening-0": dict(body_opening=0),
    "batch-2": dict(items=2),
    "windows-3-a-time": dict(items=2, tiles=dict(sw_batch_size=3)),
    "padded": dict(padded=True, tiles=dict(context=1)),
    "padded-gaussian": dict(padded=True, tiles=dict(context=1, overlap=0.5, mode="gaussian")),
    "votes-4": dict(tiles=dict(votes=4)),
    "votes-1": dict(tiles=dict(votes=1)),
    "half-precision": dict(half=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_the_reference(case):
    case = {"shape": (40, 32, 44), "items": 1, "padded": False, "half": False, **case}
    shape, items, padded, half = (case.pop(key) for key in ("shape", "items", "padded", "half"))
    volume, network = torso(*shape, items=items), Cascade(padded=padded, half=half)
    before = volume.clone()
    inferer = cascade(**case)
    result = inferer(volume, network)
    assert torch.equal(volume, before)
    settings = {"downsampling": inferer.downsampling, "body_opening": inferer.body_opening}
    regions = inferer.localise(subsample(volume, inferer.downsampling), network)
    assert result.dtype == torch.uint8 and result.shape == volume.shape
    assert [part.dtype for part in regions] == [torch.bool, torch.uint8, torch.bool]
    for item in range(items):
        expected, labels = reference(volume[item, 0].numpy(), network, dilation=inferer.dilation, **settings)
        np.testing.assert_array_equal(result[item, 0].numpy(), labels)
        for part, wanted in zip(regions, expected):
            np.testing.assert_array_equal(part[item, 0].numpy(), wanted)
        assert set(np.unique(labels)) == {0, 1, 2} and expected[2].mean() < expected[0].mean() < 0.9


@pytest.mark.parametrize(
    "norm, settings",
    [(None, {}), (None, {"overlap": 0.5, "mode": "gaussian"}), (None, {"votes": 4}), ("instance", {})],
    ids=str,
)
@pytest.mark.parametrize("padded", [True, False])
def test_the_region_changes_no_label_inside_it(norm, settings, padded):
    torch.manual_seed(0)
    network = CascadedUNet3D(out_channels=4, widths=(2, 4), norm=norm, padded=padded).eval()
    network.stage1.score.bias.data[0] += 0.2  # else stage 1 finds something nearly everywhere
    volume, roi = torso(60, 44, 100, length=0.6), (28, 28, 24) if not padded else (12, 12, 8)
    window = HounsfieldWindow((-500, 500), (-1, 1))
    tiles = VotingInferer(roi, **{"overlap": 0.0, "padding_mode": "constant", **settings})
    inferer = CascadeInferer(window, tiles, window, tiles, 2, dilation=1, compare={"again": tiles})
    everywhere = CascadeInferer(window, tiles, window, tiles, 2, -5000.0, 0, 99, compare={"again": tiles})
    limited, full = inferer(volume, network), everywhere(volume, network)
    assert everywhere.report["c1_share"] == everywhere.report["c2_share"] == 1
    for stage in ("stage1", "stage2"):
        assert inferer.report["windows"][stage] < everywhere.report["windows"][stage]
    assert limited[:, 3].any() and len(limited[:, 1].unique()) > 2
    body = upsample_nearest(inferer.localise(subsample(volume, 2), network)[0], 2, volume.shape[2:])
    assert torch.equal(limited[:, 0], full[:, 0] * body[:, 0])
    assert torch.equal(limited[:, 1], full[:, 1] * limited[:, 3])
    assert torch.equal(limited[:, 1], limited[:, 2])


def test_compared_answers_are_channels_and_share_stage_1():
    volume, network = torso(40, 32, 44, items=2), Cascade()
    inferer = cascade()
    alone = [cascade(stages=1), inferer, cascade(tiles=dict(votes=4)), cascade(roi=7)]
    alone = [single(volume, network) for single in alone]
    inferer.compare = {"overlapping": tiles_of(votes=4), "other": tiles_of(7)}
    network.stage1.sizes.clear()
    result = inferer(volume, network)
    assert result.dtype == torch.uint8 and result.shape == (2, 5, 40, 32, 44)
    for channel, single in enumerate(alone):
        assert torch.equal(result[:, channel : channel + 1], single)
    once = len(network.stage1.sizes)
    candidate = inferer.localise(subsample(volume, 2), network)[2]
    assert torch.equal(subsample(result[:, 4:], 2), candidate.to(torch.uint8))
    assert len(network.stage1.sizes) == 2 * once
    assert set(inferer.report["windows"]) == {"stage1"}


def test_one_stage_never_runs_the_second():
    network = Cascade()
    result = cascade(stages=1)(torso(40, 32, 44), network)
    assert result.any() and network.stage1.sizes and not network.stage2.sizes
    del network.stage2
    assert torch.equal(cascade(stages=1)(torso(40, 32, 44), network), result)


@pytest.mark.parametrize(
    "volume, text",
    [
        (torch.full((1, 1, 20, 20, 20), -1000.0), r"no body.*10x10x10 voxels from -1000 to -1000 HU.*at least -500 HU"),
        (torch.rand(1, 1, 20, 20, 1) - 1024, r"no body was found in a volume of 10x10x1 voxels"),
    ],
    ids=["air", "air-one-slice"],
)
@pytest.mark.parametrize("stages, compare", [(1, False), (2, False), (2, True)])
def test_without_a_body_the_answer_is_empty(caplog, volume, text, compare, stages):
    network = Cascade()
    inferer = cascade(stages=stages, compare={"overlapping": tiles_of(votes=4)} if compare else None)
    result = inferer(volume, network)
    assert result.shape == (1, 4 if compare else 1, *volume.shape[2:]) and result.dtype == torch.uint8
    assert not result.any() and not network.stage1.sizes and not network.stage2.sizes
    assert inferer.report["c1_share"] == inferer.report["c2_share"] == 0 and not inferer.report["stage1_found"]
    assert set(inferer.report["windows"].values()) == {0}
    assert logged(caplog, text)
    for part in inferer.localise(volume, network):
        assert part.shape == volume.shape and not part.any()


@pytest.mark.parametrize("compare", [False, True])
def test_where_stage_1_finds_nothing_stage_2_is_not_run(caplog, compare):
    network, volume = Cascade(), torso(40, 32, 44)
    network.stage1.conv.bias.data -= 100
    inferer = cascade(compare={"overlapping": tiles_of(votes=4)} if compare else None)
    result = inferer(volume, network)
    assert result.shape[1] == (4 if compare else 1) and not result.any()
    assert network.stage1.sizes and not network.stage2.sizes
    report = inferer.report
    assert report["c1_share"] > 0 == report["c2_share"] and report["stage1_found"] is False
    assert report["windows"]["stage1"] > 0 == report["windows"]["stage2"]
    assert logged(caplog, r"stage 1 found nothing in a body of \d+ of 20x16x22 voxels")


def test_an_empty_volume_in_a_batch_leaves_the_other_alone():
    volume, network = torso(40, 32, 44, items=2), Cascade()
    expected = cascade()(volume[1:], network)
    volume[0] = -1000
    inferer = cascade()
    result = inferer(volume, network)
    assert not result[0].any() and torch.equal(result[1:], expected)
    assert inferer.report["stage1_found"] is False and inferer.report["windows"]["stage2"] > 0


def test_the_report_holds_plain_numbers_of_the_last_call(caplog):
    caplog.set_level(logging.INFO)
    volume, network = torso(48, 40, 60, items=2, length=0.8), Cascade()
    inferer = cascade(roi=7)
    assert inferer.report == {}
    inferer(volume, network)
    report = json.loads(json.dumps(inferer.report))
    body, labels, candidate = inferer.localise(subsample(volume, 2), network)
    assert inferer.report["windows"] == {"stage1": report["windows"]["stage1"]}
    assert report["c1_share"] == pytest.approx(body.float().mean().item())
    assert report["c2_share"] == pytest.approx(candidate.float().mean().item())
    assert report["stage1_found"] is True
    assert set(report["seconds"]) == {"body", "stage1", "candidate", "stage2", "upsampling"}
    assert min(report["seconds"].values()) > 0
    assert 0 < report["windows"]["stage2"] < report["windows"]["stage1"] < 2 * 5 * 4 * 6
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert len(lines) == 2 and all("C1 " in line and "C2 " in line and "windows" in line for line in lines)
    share = 100 * body[0].float().mean().item()
    assert f"C1 {share:.1f}%" in lines[0]


def test_windows_that_miss_the_region_are_never_run():
    volume, network = torso(48, 40, 60), Cascade()
    network.stage1.output_size = network.stage2.output_size = lambda roi: tuple(length - 2 for length in roi)
    inferer = cascade(roi=7, tiles=dict(votes=1))
    inferer(volume, network)
    body, _, candidate = inferer.localise(subsample(volume, 2), Cascade())
    for stage, region in ((network.stage1, body), (network.stage2, candidate)):
        cores = torch.nn.functional.max_pool3d(region.float(), 5, ceil_mode=True)
        assert len(stage.sizes) == int(cores.sum())


def test_metadata_survives():
    affine = torch.diag(torch.tensor([-0.7, 0.7, 1.5, 1.0], dtype=torch.float64))
    volume = MetaTensor(torso(41, 32, 45), affine=affine[None], meta={"filename_or_obj": ["case"]})
    volume.is_batch = True
    result = cascade(compare={"overlapping": tiles_of(votes=2)})(volume, Cascade())
    assert isinstance(result, MetaTensor) and result.is_batch and result.shape == (1, 4, 41, 32, 45)
    case = decollate_batch(result)[0]
    assert torch.equal(case.affine, affine) and case.meta["filename_or_obj"] == "case"
    assert torch.equal(
        result.as_tensor(), cascade(compare={"overlapping": tiles_of(votes=2)})(volume.as_tensor(), Cascade())
    )
    for part in cascade().localise(volume, Cascade()):
        assert type(part) is torch.Tensor


@pytest.mark.parametrize("dtype", [torch.int16, torch.float64, torch.float16], ids=str)
def test_other_types_of_numbers_are_read(dtype):
    volume = torso(40, 32, 44).round()
    expected = cascade()(volume, Cascade())
    assert torch.equal(cascade()(volume.to(dtype), Cascade()), expected)


def test_no_gradient_is_kept_and_further_arguments_reach_both_stages():
    class Scaled(Brightness):
        def forward(self, windows, factor, shift=0.0):
            return super().forward(windows) * factor + shift

    network = Cascade()
    network.stage1, network.stage2 = Scaled(0.06, 0.28), Scaled(-0.15, -0.08, seed=1)
    result = cascade()(torso(40, 32, 44), network, 3.0, shift=1.0)
    assert torch.equal(result, cascade()(torso(40, 32, 44), Cascade()))


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda: cascade(stages=3), "stages=3 .*1 or 2 stages"),
        (lambda: cascade(compare={"stage2": tiles_of()}), "names an answer 'stage2'.*choose another name"),
        (lambda: cascade(stages=1, compare={"again": tiles_of()}), "stages=1 with 1 inferers.*without compare"),
        (lambda: cascade(dilation=-1), "dilation is -1.*whole voxels.*--dilation 3"),
        (lambda: cascade(dilation="3"), "dilation is '3'.*whole voxels"),
        (lambda: cascade(dilation=float("inf")), "dilation is inf.*whole voxels"),
        (lambda: cascade(body_opening=0.5), "body_opening is 0.5.*whole voxels"),
        (lambda: cascade(downsampling=(2, 2)), r"downsampling factor \(2, 2\)"),
        (lambda: cascade(tiles=dict(output="probabilities")), "output='probabilities'.*hands over labels"),
        (lambda: cascade(compare={"again": tiles_of(threshold=0.5)}), "threshold=0.5.*hands over labels"),
        (lambda: cascade()(torch.zeros(1, 9, 9, 9), Cascade()), r"inputs of \(1, 9, 9, 9\).*B 1 X Y Z"),
        (lambda: cascade()(torch.zeros(1, 2, 9, 9, 9), Cascade()), r"inputs of \(1, 2, 9, 9, 9\).*one channel"),
        (lambda: cascade()(torch.zeros(1, 1, 9, 0, 9), Cascade()), "at least one voxel"),
        (lambda: cascade()(torch.zeros(1, 1, 9, 9, 9), torch.nn.Identity()), "Identity has no stage1 and no stage2"),
        (lambda: cascade().localise(torch.zeros(1, 1, 9, 9, 9), torch.nn.Identity()), "Identity has no stage1:"),
    ],
)
def test_errors_name_the_rule(call, text):
    with pytest.raises(InputError, match=text):
        call()


@pytest.mark.gpu
def test_cuda_gives_the_same_labels():
    volume, network = torso(40, 32, 44, items=2), Cascade()
    inferer = cascade(compare={"overlapping": tiles_of(votes=4)})
    expected = inferer(volume, network)
    got = inferer(volume.cuda(), network.cuda())
    assert got.is_cuda and torch.equal(got.cpu(), expected)
