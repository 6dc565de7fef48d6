"""The voting inferer against a slow reference that goes voxel by voxel, and against MONAI's sliding window."""

import itertools
import math

import numpy as np
import pytest
import torch
from convolved import Convolved, volume_of
from monai.data.utils import compute_importance_map
from monai.inferers import SlidingWindowInferer

from common.inferers import VotingInferer
from common.networks.planar import PlanarUNet
from common.networks.unet3d import UNet3D

_MODES = {"reflect": "reflect", "replicate": "edge", "constant": "constant"}


def reference_starts(extent, core, overlap, votes, align):
    """Lists of starts for each axis, one entry for each grid, counted up step by step."""
    if votes:
        grids = []
        for vote in range(votes):
            axes = []
            for voxels, length, step in zip(extent, core, align):
                first = -(length * vote // votes)
                while first % step:
                    first += 1
                axes.append([start for start in range(first, voxels) if (start - first) % length == 0])
            grids.append(axes)
        return grids
    axes = []
    for voxels, length, multiple in zip(extent, core, align):
        if voxels <= length:
            first = -((length - voxels) // 2)
            while first % multiple:
                first += 1
            axes.append([first])
            continue
        starts, step, last = [0], max(int(length * (1 - overlap)), 1), voxels - length
        while step % multiple and step > multiple:
            step -= 1
        while last % multiple:
            last += 1
        while starts[-1] + length < voxels:
            starts.append(min(starts[-1] + max(step, multiple), last))
        axes.append(starts)
    return [axes]


def reference(volume, networks, roi, lost, overlap=0.5, votes=None, mode="constant", vote="mean", context=0,
              align=1, padding_mode="reflect", mask=None):  # fmt: skip
    """Means (or shares of votes) in double precision and labels, voxel by voxel over a padded copy of the volume."""
    extent = volume.shape[2:]
    align = [align] * len(roi) if isinstance(align, int) else align
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
    "aligned-axis-by-axis": dict(align=(4, 2, 1), roi=(10, 6, 3), shape=(1, 1, 9, 5, 7)),
    "aligned-axis-by-axis-votes": dict(align=[2, 1, 4], votes=3, roi=(8, 5, 10), shape=(1, 1, 7, 5, 12), tell=True),
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


@pytest.mark.parametrize("axis, roi", [(2, (20, 22, 3)), (1, (20, 1, 24)), (0, (2, 26, 20))])
@pytest.mark.parametrize("norm", [None, "batch"])
def test_slices_of_a_planar_network_are_neither_lost_nor_read_twice(axis, roi, norm):
    """Nothing is pooled across its slices: tiles of any number of them stand side by side."""
    torch.manual_seed(0)
    network = PlanarUNet(1, 3, (2, 4), norm, axis=axis).eval()
    volume = volume_of(1, 1, 9, 7, 5, integer=False)
    whole_size = [26 if across != axis else volume.shape[2 + across] for across in range(3)]
    whole = VotingInferer(whole_size, 0.0, output="probabilities", align=network.stride)(volume, network)
    inferer = VotingInferer(roi, 0.0, output="probabilities", align=network.stride)
    if norm is None:
        torch.testing.assert_close(inferer(volume, network), whole, atol=1e-5, rtol=1e-5)
    labels = VotingInferer(roi, 0.0, align=network.stride)(volume, network)
    assert labels.shape == volume.shape
    inferer(volume, network)
    core = network.output_size(roi)
    assert inferer.windows == math.prod(-(-n // length) for n, length in zip(volume.shape[2:], core))


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


def test_windows_read_true_neighbours_and_mirror_only_beyond_the_volume():
    inner = torch.arange(1.0, 13.0).reshape(1, 1, 1, 12)
    windows = []

    def network(window):
        windows.append(window.flatten().tolist())
        return window.expand(-1, 2, -1, -1)

    VotingInferer((1, 8), overlap=0.0, context=(0, 2))(inner, network)
    assert windows == [[3, 2, 1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8, 9, 10], [7, 8, 9, 10, 11, 12, 11, 10]]
