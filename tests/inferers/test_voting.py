"""The voting inferer against a slow reference that goes voxel by voxel, and against MONAI's sliding window."""

import io
import itertools
import sys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch
from monai.data.utils import compute_importance_map
from monai.inferers import SlidingWindowInferer

from common.checks import InputError
from common.inferers import VotingInferer
from common.inferers.rolling import RollingSums
from common.networks.unet3d import UNet3D

_MODES = {"reflect": "reflect", "replicate": "edge", "constant": "constant"}


class Convolved(torch.nn.Module):
    """One 3-wide convolution per axis; small integers keep every sum exact, `tell` answers for the output size."""

    def __init__(self, classes=3, padded=False, integer=True, tell=False, dims=3, seed=0):
        super().__init__()
        conv = (torch.nn.Conv2d, torch.nn.Conv3d)[dims - 2]
        self.conv = conv(1, classes, 3, padding=1 if padded else 0, bias=False)
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(self.conv.weight.shape, generator=generator)
        self.conv.weight.data = (2 * weight).round() if integer else weight
        self.lost, self.sizes = 0 if padded else 2, []
        if tell:
            self.output_size = lambda roi: tuple(length - self.lost for length in roi)

    def forward(self, windows):
        self.sizes.append(tuple(windows.shape))
        return self.conv(windows)


def volume_of(*shape, seed=1, integer=True):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    return (3 * values).round() if integer else values


def reference_starts(extent, core, overlap, votes, align):
    """Lists of starts for each axis, one entry for each grid, counted up step by step."""
    if votes:
        grids = []
        for vote in range(votes):
            axes = []
            for voxels, length in zip(extent, core):
                first = -(length * vote // votes)
                while first % align:
                    first += 1
                axes.append([start for start in range(first, voxels) if (start - first) % length == 0])
            grids.append(axes)
        return grids
    axes = []
    for voxels, length in zip(extent, core):
        if voxels <= length:
            first = -((length - voxels) // 2)
            while first % align:
                first += 1
            axes.append([first])
            continue
        starts, step, last = [0], max(int(length * (1 - overlap)), 1), voxels - length
        while step % align and step > align:
            step -= 1
        while last % align:
            last += 1
        while starts[-1] + length < voxels:
            starts.append(min(starts[-1] + max(step, align), last))
        axes.append(starts)
    return [axes]


def reference(volume, networks, roi, lost, overlap=0.5, votes=None, mode="constant", vote="mean", context=0,
              align=1, padding_mode="reflect", mask=None):  # fmt: skip
    """Means (or shares of votes) in double precision and labels, voxel by voxel over a padded copy of the volume."""
    extent = volume.shape[2:]
    core = [length - lost - 2 * context for length in roi]
    margin, pad = lost // 2 + context, max(roi) + lost
    weight = compute_importance_map(tuple(core), mode).numpy()
    labels, means = [], []
    for item in range(volume.shape[0]):
        padded = np.pad(volume[item, 0].numpy(), pad, mode=_MODES[padding_mode])
        model_means = []
        for network in networks:
            sums, counts = None, np.zeros(extent)
            for axes in reference_starts(extent, core, overlap, votes, align):
                for start in itertools.product(*axes):
                    window = padded[tuple(slice(a - margin + pad, a - margin + pad + n) for a, n in zip(start, roi))]
                    scores = network(torch.from_numpy(window.copy())[None, None])[0].detach().numpy()
                    sums = np.zeros((len(scores), *extent)) if sums is None else sums
                    for inner in itertools.product(*map(range, core)):
                        place = tuple(a + i for a, i in zip(start, inner))
                        if all(0 <= p < n for p, n in zip(place, extent)):
                            voxel = scores[(slice(None), *(i + context for i in inner))]
                            if vote == "majority":
                                voxel = np.eye(len(voxel))[list(voxel).index(max(voxel))]
                            sums[(slice(None), *place)] += voxel * weight[inner]
                            counts[place] += weight[inner]
            model_means.append(sums / counts)
        mean = sum(model_means) / len(networks)
        label = np.zeros(extent, dtype=np.uint8)
        for place in itertools.product(*map(range, extent)):
            voxel = list(mean[(slice(None), *place)].round(9))
            label[place] = voxel.index(max(voxel))
        if mask is not None:
            label[mask[item if len(mask) > 1 else 0, 0].numpy() == 0] = 0
            mean = mean * (mask[item if len(mask) > 1 else 0, 0].numpy() != 0)
        labels.append(label[None])
        means.append(mean)
    return torch.from_numpy(np.stack(labels)), torch.from_numpy(np.stack(means))


CASES = {
    "padded": dict(padded=True),
    "padded-context": dict(padded=True, context=1),
    "valid": dict(),
    "valid-told": dict(tell=True),
    "valid-context": dict(context=1, tell=True),
    "no-overlap": dict(overlap=0.0),
    "overlap-0.75": dict(overlap=0.75, roi=(6, 6, 6), shape=(1, 1, 5, 6, 9)),
    "anisotropic-odd": dict(roi=(9, 6, 5), shape=(1, 1, 13, 7, 8)),
    "long-first-axis": dict(shape=(1, 1, 21, 5, 6)),
    "long-middle-axis": dict(shape=(1, 1, 5, 23, 6), tell=True),
    "thin": dict(shape=(1, 1, 2, 9, 7)),
    "one-voxel-axis": dict(shape=(1, 1, 1, 9, 1)),
    "smaller-than-everything": dict(shape=(1, 1, 2, 3, 1), padded=True),
    "thin-replicate": dict(shape=(1, 1, 2, 9, 7), padding_mode="replicate"),
    "thin-constant": dict(shape=(1, 1, 2, 9, 7), padding_mode="constant"),
    "aligned": dict(align=4, shape=(1, 1, 9, 5, 17)),
    "aligned-votes": dict(align=2, votes=3, roi=(8, 6, 10), shape=(1, 1, 7, 5, 12)),
    "votes-4": dict(votes=4),
    "votes-3-padded": dict(votes=3, padded=True, context=1),
    "votes-1-thin": dict(votes=1, shape=(1, 1, 3, 11, 2)),
    "gaussian": dict(mode="gaussian", integer=False),
    "gaussian-votes": dict(mode="gaussian", integer=False, votes=2, padded=True),
    "majority": dict(vote="majority", overlap=0.5, padded=True, roi=(4, 4, 4), shape=(1, 1, 6, 7, 9)),
    "majority-gaussian-votes": dict(vote="majority", mode="gaussian", votes=4, padded=True, integer=False),
    "two-models": dict(models=2),
    "three-models-majority": dict(models=3, vote="majority", padded=True),
    "batch-2": dict(shape=(2, 1, 7, 8, 9)),
    "batch-2-windows-3": dict(shape=(2, 1, 7, 8, 9), sw_batch_size=3, votes=2),
    "mask": dict(masked=0.02, shape=(2, 1, 9, 8, 17)),
    "mask-votes-gaussian": dict(masked=0.01, votes=4, mode="gaussian", integer=False, models=2),
    "mask-windows-4": dict(masked=0.02, padded=True, sw_batch_size=4, shape=(1, 1, 8, 19, 6)),
    "2d": dict(roi=(6, 8), shape=(2, 1, 13, 11)),
    "2d-votes-mask": dict(roi=(6, 8), shape=(1, 1, 13, 11), votes=3, masked=0.1),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_the_reference(case):
    case = {"roi": (7, 6, 8), "shape": (1, 1, 9, 8, 11), "padded": False, "integer": True, "models": 1, **case}
    roi, shape, padded, integer = (case.pop(key) for key in ("roi", "shape", "padded", "integer"))
    models, masked, tell = case.pop("models"), case.pop("masked", None), case.pop("tell", False)
    networks = [
        Convolved(padded=padded, integer=integer, tell=tell, dims=len(roi), seed=seed).eval() for seed in range(models)
    ]
    volume = volume_of(*shape, integer=integer)
    mask = None
    if masked:
        mask = torch.rand(shape[:1] + (1,) + shape[2:], generator=torch.Generator().manual_seed(3)) < masked
        assert mask.any()
    settings = {key: value for key, value in case.items() if key != "sw_batch_size"}
    labels, means = reference(volume, networks, roi, networks[0].lost, mask=mask, **settings)
    network = networks[0] if models == 1 else torch.nn.ModuleList(networks)
    got = VotingInferer(roi, activation=None, **case)(volume, network, mask=mask)
    assert got.dtype == torch.uint8 and torch.equal(got, labels)
    assert len(labels.unique()) > 1
    probabilities = VotingInferer(roi, activation=None, output="probabilities", **case)(volume, network, mask=mask)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, means.float(), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.6])
@pytest.mark.parametrize("shape", [(2, 1, 17, 12, 21), (1, 1, 5, 12, 9)], ids=["large", "thin"])
def test_probabilities_equal_monai_where_both_can(shape, overlap, mode):
    network, volume = Convolved(padded=True, integer=False), volume_of(*shape, integer=False)
    theirs = SlidingWindowInferer((8, 10, 6), 2, overlap, mode, padding_mode="constant")
    ours = VotingInferer(
        (8, 10, 6),
        overlap,
        mode=mode,
        activation=None,
        output="probabilities",
        padding_mode="constant",
        sw_batch_size=2,
    )
    with torch.no_grad():
        torch.testing.assert_close(ours(volume, network), theirs(volume, network), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tell", [True, False])
@pytest.mark.parametrize("settings", [dict(overlap=0.0), dict(overlap=0.3), dict(votes=3)], ids=str)
def test_a_valid_network_in_tiles_equals_itself_on_the_whole_volume(settings, tell):
    network, volume = Convolved(tell=tell), volume_of(1, 1, 9, 4, 12)
    whole = network(torch.nn.functional.pad(volume, (1,) * 6, mode="reflect")).argmax(1, keepdim=True)
    got = VotingInferer((8, 9, 7), activation=None, **settings)(volume, network)
    assert torch.equal(got.long(), whole)


@pytest.mark.parametrize("settings", [dict(overlap=0.0), dict(overlap=0.5), dict(votes=3), dict(context=4)], ids=str)
def test_aligned_windows_of_an_unpadded_unet_equal_the_whole_volume(settings):
    torch.manual_seed(0)
    network = UNet3D(in_channels=1, out_channels=3, widths=[2, 4, 8], norm=None, padded=False).eval()
    volume = volume_of(1, 1, 37, 22, 9, integer=False)
    tiled = VotingInferer((56, 60, 52), output="probabilities", align=4, **settings)(volume, network)
    whole = VotingInferer((80, 64, 52), output="probabilities", align=4, overlap=0.0)(volume, network)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)
    assert whole.std() > 0.01
    shifted = VotingInferer((56, 60, 52), output="probabilities", align=1, overlap=0.4)(volume, network)
    assert (shifted - whole).abs().max() > 1e-3


@pytest.mark.parametrize("votes", [1, 2, 3, 4, 5])
def test_every_voxel_has_exactly_r_predictions(votes):
    seen = []

    def network(windows):
        seen.append(windows.round().long().flatten())
        return windows.expand(-1, 2, -1, -1, -1)

    volume = torch.arange(1.0, 1 + 5 * 9 * 13).reshape(1, 1, 5, 9, 13)
    VotingInferer((4, 4, 6), votes=votes, padding_mode="constant")(volume, network)
    counts = torch.bincount(torch.cat(seen), minlength=5 * 9 * 13 + 1)[1:]
    assert (counts == votes).all()


@pytest.mark.parametrize("settings", [dict(overlap=0.5), dict(mode="gaussian"), dict(votes=4)], ids=str)
def test_five_models_of_ones_are_one(settings):
    inferer = VotingInferer((6, 6, 6), activation=None, output="probabilities", **settings)
    result = inferer(torch.zeros(1, 1, 11, 9, 14), [torch.ones_like] * 5)
    torch.testing.assert_close(result, torch.ones_like(result), atol=1e-5, rtol=0)
    masks = VotingInferer((6, 6, 6), activation=None, threshold=0.5, **settings)
    assert (masks(torch.zeros(1, 1, 11, 9, 14), [torch.ones_like] * 5) == 1).all()


def test_windows_whose_core_misses_the_mask_are_never_run():
    network, volume = Convolved(tell=True), volume_of(1, 1, 12, 12, 40)
    mask = torch.zeros(1, 1, 12, 12, 40)
    mask[0, 0, 5, 5, 2], mask[0, 0, 6, 6, 36] = 1, 1
    result = VotingInferer((8, 8, 8), overlap=0.0, activation=None)(volume, network, mask=mask)
    assert len(network.sizes) == 2
    full = VotingInferer((8, 8, 8), overlap=0.0, activation=None)(volume, network)
    assert torch.equal(result, full * (mask != 0))


@pytest.mark.parametrize("output, channels, runs", [("labels", 1, 0), ("probabilities", 3, 1)])
def test_an_empty_mask_gives_zeros(output, channels, runs):
    network = Convolved(tell=True)
    inferer = VotingInferer((8, 8, 8), activation=None, output=output)
    result = inferer(volume_of(2, 1, 9, 9, 9), network, mask=torch.zeros(2, 1, 9, 9, 9))
    assert result.shape == (2, channels, 9, 9, 9) and not result.any() and len(network.sizes) == runs


def test_a_batch_may_hold_one_empty_mask():
    volume, mask = volume_of(2, 1, 9, 9, 9), torch.ones(2, 1, 9, 9, 9)
    mask[0] = 0
    inferer = VotingInferer((8, 8, 8), activation=None, output="probabilities")
    result = inferer(volume, Convolved(), mask=mask)
    assert not result[0].any()
    assert torch.equal(result[1], inferer(volume[1:], Convolved())[0])


def test_windows_of_the_last_call_are_counted():
    volume, mask = volume_of(2, 1, 12, 12, 40), torch.zeros(2, 1, 12, 12, 40)
    inferer = VotingInferer(8, overlap=0.0, activation=None, sw_batch_size=3)
    for network in (Convolved(tell=True), Convolved(), [Convolved(), Convolved(seed=1)]):
        inferer(volume, network)
        assert inferer.windows == 2 * 2 * 2 * 7
    mask[1, 0, 5, 5, 2] = 1
    inferer(volume, Convolved(), mask=mask)
    assert inferer.windows == 1
    inferer(volume, Convolved(), mask=mask * 0)
    assert inferer.windows == 0


@pytest.mark.parametrize("terminal, drawn", [(True, True), (False, False)])
def test_the_progress_bar_is_for_terminals(monkeypatch, terminal, drawn):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    for progress in (False, True):
        VotingInferer(8, progress=progress)(volume_of(1, 1, 12, 12, 12), Convolved())
        assert bool(stream.getvalue()) == (drawn and progress)


def test_windows_read_true_neighbours_and_mirror_only_beyond_the_volume():
    inner = torch.arange(1.0, 13.0).reshape(1, 1, 1, 12)
    windows = []

    def network(window):
        windows.append(window.flatten().tolist())
        return window.expand(-1, 2, -1, -1)

    VotingInferer((1, 8), overlap=0.0, context=(0, 2))(inner, network)
    assert windows == [[3, 2, 1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8, 9, 10], [7, 8, 9, 10, 11, 12, 11, 10]]


@pytest.fixture
def shapes_held(monkeypatch):
    """The shapes of all sums that are allocated during a test."""
    shapes, plain = [], RollingSums.__init__

    def watch(self, sums, *rest):
        shapes.append(tuple(sums.shape))
        plain(self, sums, *rest)

    monkeypatch.setattr(RollingSums, "__init__", watch)
    return shapes


@pytest.mark.parametrize(
    "extent, held",
    [((6, 6, 40), (6, 6, 8)), ((40, 6, 9), (8, 6, 9)), ((7, 30, 30), (7, 8, 30)), ((5, 6, 9), (5, 6, 8))],
)
def test_labels_hold_scores_of_one_window_height_only(shapes_held, extent, held):
    VotingInferer(8, overlap=0.5, activation=None)(volume_of(1, 1, *extent), Convolved(padded=True))
    assert shapes_held == [(3, *held)]


@pytest.mark.parametrize(
    "box, held",
    [
        ((slice(2, 7), slice(1, 5), slice(11, 40)), (3, 5, 4, 8)),
        ((slice(0, 9), slice(3, 4), slice(20, 23)), (3, 9, 1, 3)),
        ((slice(8, 9), slice(9, 10), slice(41, 42)), (3, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("settings", [dict(), dict(overlap=0.2, mode="gaussian"), dict(votes=4)], ids=str)
def test_sums_are_held_inside_the_box_of_the_mask_and_change_nothing(shapes_held, settings, box, held):
    network, volume = Convolved(), volume_of(1, 1, 9, 10, 42)
    mask = torch.zeros(1, 1, 9, 10, 42, dtype=torch.bool)
    mask[(..., *box)] = True
    mask[0, 0, 4, 3, 21:30] = False
    inferer = VotingInferer(10, activation=None, **settings)
    everywhere = inferer(volume, network)
    shapes_held.clear()
    assert torch.equal(inferer(volume, network, mask=mask), everywhere * mask)
    assert shapes_held == [held]
    assert torch.equal(inferer(volume, network, mask=mask.float() * 7), everywhere * mask)


@pytest.mark.parametrize("settings", [dict(votes=1), dict(votes=1, mode="gaussian"), dict(overlap=0.0)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_one_prediction_a_voxel_needs_no_sums(shapes_held, settings, masked):
    network, volume = Convolved(integer=False), volume_of(2, 1, 18, 12, 24, integer=False)
    mask = torch.rand(2, 1, 18, 12, 24, generator=torch.Generator().manual_seed(3)) < 0.003 if masked else None
    inferer = VotingInferer(8, sw_batch_size=2, **settings)
    labels = inferer(volume, network, mask=mask)
    assert labels.dtype == torch.uint8 and not shapes_held
    sums = VotingInferer(8, output="probabilities", **settings)(volume, network, mask=mask)
    assert torch.equal(labels, sums.argmax(1, keepdim=True).to(torch.uint8))
    assert labels.any()


@pytest.mark.parametrize(
    "settings, models, extent",
    [(dict(votes=2), 1, 12), (dict(votes=1), 2, 12), (dict(overlap=0.0), 1, 13), (dict(overlap=0.5), 1, 12)],
)
def test_several_predictions_a_voxel_are_summed(shapes_held, settings, models, extent):
    networks = [Convolved(seed=seed) for seed in range(models)]
    VotingInferer(8, activation=None, **settings)(volume_of(1, 1, 6, 6, extent), networks)
    assert len(shapes_held) == 1


def test_softmax_and_sigmoid_are_applied_before_the_mean():
    low, high = (lambda window, score=score: torch.cat([window * 0 + score, window * 0], 1) for score in (-9.0, 1.0))
    volume = torch.zeros(1, 1, 4, 4, 4)
    soft = VotingInferer(4, output="probabilities")(volume, [low, high])
    expected = (torch.sigmoid(torch.tensor(-9.0)) + torch.sigmoid(torch.tensor(1.0))) / 2
    torch.testing.assert_close(soft[:, 0], expected.expand(1, 4, 4, 4))
    sigmoid = VotingInferer(4, output="probabilities", activation="sigmoid")(volume, [low, high])
    torch.testing.assert_close(sigmoid[:, 0], expected.expand(1, 4, 4, 4))
    assert torch.equal(sigmoid[:, 1], torch.full((1, 4, 4, 4), 0.5))


@pytest.mark.parametrize(
    "vote, threshold, expected", [("mean", 0.6, 1), ("mean", 0.7, 0), ("majority", 0.5, 1), ("majority", 0.9, 0)]
)
def test_threshold(vote, threshold, expected):
    networks = [lambda window, p=p: torch.full_like(window, p) for p in (1.0, 0.8, 0.125)]
    inferer = VotingInferer(4, vote=vote, activation=None, threshold=threshold)
    result = inferer(torch.zeros(1, 1, 6, 5, 4), networks)
    assert result.dtype == torch.uint8 and result.shape == (1, 1, 6, 5, 4) and (result == expected).all()


def test_half_of_the_votes_is_no_majority():
    networks = [lambda window, p=p: torch.full_like(window, p) for p in (1.0, 0.0)]
    result = VotingInferer(4, vote="majority", activation=None, threshold=0.5)(torch.zeros(1, 1, 4, 4, 4), networks)
    assert not result.any()


def test_equal_scores_give_the_lowest_class():
    result = VotingInferer(4)(torch.zeros(1, 1, 5, 5, 5), lambda window: window.expand(-1, 4, -1, -1, -1))
    assert not result.any()


def test_more_than_256_classes_are_not_wrapped():
    def network(window):
        scores = window.expand(-1, 300, -1, -1).clone()
        scores[:, 290] += 1
        return scores

    result = VotingInferer(2, activation=None)(torch.zeros(1, 1, 3, 3), network)
    assert result.dtype == torch.int32 and (result == 290).all()


@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_half_precision_is_summed_in_float32(output):
    network, volume = Convolved(padded=True), volume_of(1, 1, 9, 9, 9)
    inferer = VotingInferer(6, activation=None, output=output, mode="gaussian")
    half = inferer(volume, lambda window: network(window).half())
    assert torch.equal(half, inferer(volume, network))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert inferer(volume, network).dtype == half.dtype


def test_metadata_survives_and_inputs_are_left_alone():
    affine = torch.diag(torch.tensor([-0.7, 0.7, 3.0, 1.0], dtype=torch.float64))
    volume = MetaTensor(volume_of(1, 1, 9, 9, 9), affine=affine[None], meta={"filename_or_obj": ["case"]})
    volume.is_batch = True
    before = volume.clone()
    result = VotingInferer(6)(volume, lambda window: torch.cat([window, -window], 1))
    assert isinstance(result, MetaTensor) and result.is_batch
    case = decollate_batch(result)[0]
    assert torch.equal(case.affine, affine) and case.meta["filename_or_obj"] == "case"
    assert torch.equal(volume, before)
    identity = VotingInferer(6, activation=None, output="probabilities", mode="gaussian")(volume, lambda window: window)
    assert torch.equal(volume, before)
    torch.testing.assert_close(identity.as_tensor(), before.as_tensor())


def test_no_gradient_and_further_arguments_reach_the_network():
    network = Convolved(padded=True)
    result = VotingInferer(6, output="probabilities")(
        volume_of(1, 1, 6, 6, 6), lambda window, factor, shift: network(window) * factor + shift, 2.0, shift=1.0
    )
    assert not result.requires_grad


def test_a_part_of_roi_size_that_is_not_positive_takes_the_whole_axis():
    network = Convolved(tell=True)
    VotingInferer((-1, 6, -1), activation=None)(volume_of(1, 1, 9, 8, 7), network)
    assert {size[2:] for size in network.sizes} == {(9, 6, 7)}


def test_an_unknown_valid_network_is_run_once_too_often_and_a_padded_one_never():
    told, unknown, padded = Convolved(tell=True), Convolved(), Convolved(padded=True)
    inferer, volume = VotingInferer(8, overlap=0.0, activation=None), volume_of(1, 1, 12, 12, 12)
    for network, windows in ((told, 8), (unknown, 9), (padded, 8)):
        inferer(volume, network)
        assert len(network.sizes) == windows


def shrunk(*lost):
    return lambda window: window[(slice(None), slice(None), *(slice(0, -n or None) for n in lost))].expand(
        -1, 2, -1, -1, -1
    )


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda v: VotingInferer(8)(v, shrunk(2, 2, 3)), r"window of \(8, 8, 8\) into \(6, 6, 5\).*even number"),
        (lambda v: VotingInferer(8)(v, lambda w: w.repeat(1, 2, 2, 2, 2)), r"into \(16, 16, 16\).*as large as"),
        (lambda v: VotingInferer(8)(v, [shrunk(2, 2, 2), shrunk(0, 0, 0)]), "keep to one output size"),
        (lambda v: VotingInferer(8)(v, [shrunk(0, 0, 0), lambda w: w.expand(-1, 3, -1, -1, -1)]), "number of classes"),
        (lambda v: VotingInferer(8, context=4)(v, shrunk(0, 0, 0)), r"margin of \(4, 4, 4\).*enlarge roi_size"),
        (lambda v: VotingInferer(8, votes=2, align=3)(v, shrunk(0, 0, 0)), r"cores of \(8, 8, 8\).*multiple of align"),
        (lambda v: VotingInferer(8)(v, lambda w: w), "one output channel.*sigmoid"),
        (lambda v: VotingInferer(8)(v, lambda w: [w, w]), "returned list for 1 windows.*one tensor"),
        (lambda v: VotingInferer(8)(v, []), "at least one network"),
        (lambda v: VotingInferer((8, 8))(v, shrunk(0, 0, 0)), "spatial axes as roi_size"),
        (lambda v: VotingInferer(8)(v, shrunk(0, 0, 0), mask=torch.ones(1, 1, 9, 9, 8)), "inputs' grid"),
        (lambda v: VotingInferer(8, overlap=1.0), "overlap must be at least 0 and less than 1"),
        (lambda v: VotingInferer(8, votes=0), "votes must be"),
        (lambda v: VotingInferer(8, mode="gauss"), "mode must be one of.*gaussian"),
        (lambda v: VotingInferer(8, output="probabilities", threshold=0.5), "threshold must be None"),
    ],
)
def test_errors_name_the_rule(call, text):
    with pytest.raises(InputError, match=text):
        call(volume_of(1, 1, 9, 9, 9))


def test_a_network_that_contradicts_its_output_size_is_named():
    network = Convolved(tell=True)
    network.output_size = lambda roi: tuple(length - 4 for length in roi)
    with pytest.raises(InputError, match=r"returned 3 channels of \(6, 6, 6\).*output_size"):
        VotingInferer(8)(volume_of(1, 1, 9, 9, 9), network)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("settings", [dict(), dict(votes=4, vote="majority"), dict(threshold=2.0, context=1)], ids=str)
def test_cuda_gives_the_same_labels_without_waiting_for_the_device(settings):
    network, volume = Convolved(tell=True), volume_of(2, 1, 19, 8, 11)
    inferer = VotingInferer((8, 7, 9), activation=None, **settings)
    expected = inferer(volume, network)
    network, volume = network.cuda(), volume.cuda()
    inferer(volume, network)
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = inferer(volume, network)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert got.is_cuda and torch.equal(got.cpu(), expected)
