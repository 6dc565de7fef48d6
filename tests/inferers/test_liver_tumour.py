"""RA-UNet's inferer against a slow one that loops over slices and windows."""

import copy

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from staged import MAPS, Constant, Stages, body, inferer_of, reference

from common.networks.liver_tumour import LiverTumourRAUNet


def expected_of(volume, network, inferer, spacing=(1.0, 1.0, 1.0)):
    """What the reference gives for an inferer of `inferer_of`."""
    slices, tumour = inferer.liver_tiles.roi_size[2], inferer.tumour_tiles.roi_size
    return reference(
        volume,
        network,
        inferer.localiser_size,
        inferer.liver_size,
        slices,
        max(int(slices * (1 - inferer.liver_tiles.overlap[2])), 1),
        tumour,
        [max(int(length * (1 - inferer.tumour_tiles.overlap)), 1) for length in tumour],
        inferer.box_margin,
        inferer.box_margin_mm or 0.0,
        spacing,
        inferer.threshold_first,
    )


CASES = {
    "plain": dict(),
    "odd": dict(shape=(37, 41, 23)),
    "larger-slices": dict(settings=dict(localiser_size=(50, 63), liver_size=(40, 44))),
    "in-a-corner": dict(liver=((0.1, 0.85, 0.95), (0.25, 0.3, 0.3)), spleen=0),
    "thinner-than-a-window": dict(liver=((0.38, 0.5, 0.5), (0.25, 0.3, 0.05))),
    "thinner-at-the-end": dict(liver=((0.38, 0.5, 0.98), (0.25, 0.3, 0.05))),
    "volume-thinner-than-a-window": dict(shape=(40, 36, 5), liver=((0.38, 0.5, 0.5), (0.25, 0.3, 0.5))),
    "one-slice": dict(shape=(40, 36, 1), liver=((0.38, 0.5, 0.5), (0.25, 0.3, 0.5))),
    "smaller-than-a-tumour-window": dict(settings=dict(tumour=(44, 48, 40))),
    "flat-tumour-windows": dict(settings=dict(tumour=(10, 7, 3), tumour_overlap=0.3)),
    "no-margin": dict(settings=dict(box_margin=(0, 0, 0))),
    "margins-of-axes": dict(settings=dict(box_margin=(1, 6, 3))),
    "margin-mm": dict(settings=dict(box_margin=(1, 0, 0), box_margin_mm=5.0), spacing=(0.8, 0.8, 2.5)),
    "threshold-first": dict(settings=dict(threshold_first=True)),
    "threshold-first-larger": dict(settings=dict(threshold_first=True, liver_size=(44, 40))),
    "no-overlap": dict(settings=dict(liver_overlap=0.0, tumour_overlap=0.0)),
    "batch-2": dict(items=2),
    "slices-5-a-time": dict(settings=dict(localiser_batch_size=5)),
    "ensemble": dict(members=3),
    "ensemble-threshold-first": dict(members=2, settings=dict(threshold_first=True)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_equals_the_reference(case):
    shape, spacing, settings = case.get("shape", (40, 36, 30)), case.get("spacing"), case.get("settings", {})
    parts = {name: case[name] for name in ("liver", "spleen", "items") if name in case}
    volume, network = body(*shape, **parts), Stages(case.get("members", 1))
    before = volume.clone()
    inferer = inferer_of(maps=MAPS, **settings)
    inputs = volume
    if spacing:
        inputs = MetaTensor(volume, affine=torch.diag(torch.tensor([*spacing, 1.0])).double())
    result = inferer(inputs, network)
    assert torch.equal(volume, before) and result.dtype == torch.float32
    assert result.shape == (len(volume), 5, *shape)
    for item in range(len(volume)):
        expected = expected_of(volume[item, 0].numpy(), network, inferer, spacing or (1.0, 1.0, 1.0))
        found = dict(zip(("labels", *MAPS), result[item].as_subclass(torch.Tensor).numpy()))
        for name in ("labels", "localiser", "box"):
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        for name in ("liver_probability", "tumour_probability"):
            inside = expected["labels"] > 0 if name.startswith("tumour") else expected["box"] > 0
            np.testing.assert_allclose(found[name][inside], expected[name][inside], atol=1e-4, err_msg=name)
            assert not found[name][~inside].any()
        assert set(np.unique(expected["labels"])) == {0, 1, 2}
        assert 0.01 < (expected["labels"] > 0).mean() < expected["box"].mean()
    labels = inferer_of(**settings)(inputs, network)
    assert labels.dtype == torch.uint8 and torch.equal(labels.float(), result[:, :1])


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
@pytest.mark.parametrize("threshold_first", [False, True])
def test_an_ensemble_of_five_that_are_sure_is_sure(threshold_first, mode):
    network = Stages()
    network.liver = torch.nn.ModuleList(Constant(50.0) for _ in range(5))
    network.tumour = torch.nn.ModuleList(Constant(50.0) for _ in range(5))
    settings = dict(threshold_first=threshold_first, tiles=dict(mode=mode))
    result = inferer_of(maps=("box", "liver_probability", "tumour_probability"), **settings)(body(40, 36, 30), network)
    labels, box, liver, tumour = result[0]
    assert box.mean() < 0.8
    torch.testing.assert_close(liver, box, atol=1e-5, rtol=0)
    torch.testing.assert_close(tumour, box, atol=1e-5, rtol=0)
    assert torch.equal(labels, 2 * box)


def test_an_ensemble_is_the_mean_of_its_members_probabilities():
    network = Stages()
    logits = [-3.0, 0.5, 2.0, 4.0]
    network.liver = torch.nn.ModuleList(Constant(50.0) for _ in logits)
    network.tumour = torch.nn.ModuleList(Constant(logit) for logit in logits)
    result = inferer_of(maps=("box", "tumour_probability"))(body(40, 36, 30), network)[0]
    mean = torch.tensor(logits).sigmoid().mean()
    torch.testing.assert_close(result[2], mean * result[1], atol=1e-6, rtol=0)
    assert (result[0] == 2 * result[1]).all() and mean > 0.5


def test_earlier_ends_are_what_the_whole_leaves_behind():
    volume, network = body(40, 36, 30), Stages()
    inferer = inferer_of(maps=MAPS)
    whole = inferer(volume, network)
    report = copy.deepcopy(inferer.report)
    first, second = inferer.until("localiser"), inferer.until("liver")
    assert (first.maps, second.maps) == (MAPS[:2], MAPS[:3]) and first.report == second.report == {}
    network.tumour.sizes.clear()
    found = second(volume, network)
    assert not network.tumour.sizes and second.report["windows"].keys() == {"localiser", "liver"}
    assert torch.equal(found[:, 0], (whole[:, 0] > 0).float()) and torch.equal(found[:, 1:], whole[:, 1:4])
    network.liver.sizes.clear()
    found = first(volume, network)
    assert not network.liver.sizes and found.dtype == torch.uint8
    assert torch.equal(found[:, 0].float(), whole[:, 1]) and torch.equal(found[:, 1:].float(), whole[:, 1:3])
    assert first.report["windows"] == {"localiser": 30} and first.report["liver_found"] is True
    assert first.report["box_share"] == report["box_share"] and "tumours" not in first.report
    assert inferer.report == report and inferer.maps == MAPS and inferer.stage == "tumour"
    del network.liver, network.tumour
    assert torch.equal(inferer_of(stage="localiser")(volume, network), found[:, :1])


def test_the_published_network_fits():
    network = LiverTumourRAUNet(localiser_width=1, width=1, members=2).eval()
    # all logits are 0, all probabilities a half
    network.load_state_dict({name: value * 0 for name, value in network.state_dict().items()})
    settings = dict(liver_size=(32, 32), slices=32, tumour=(32, 32, 32), localiser_size=(32, 64))
    result = inferer_of(maps=MAPS, liver_threshold=0.5, **settings)(body(36, 40, 34), network)
    assert (result[:, :3] == torch.tensor([2.0, 1, 1]).reshape(1, 3, 1, 1, 1)).all() and (result[:, 3:] == 0.5).all()


@pytest.mark.parametrize("members", [1, 3])
def test_torchscript_answers_as_the_network_does(members, tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Module()
    network.localiser = torch.nn.Conv2d(1, 1, 3, padding=1)
    for name in ("liver", "tumour"):
        networks = [torch.nn.Conv3d(1, 1, 3, padding=1) for _ in range(members)]
        setattr(network, name, torch.nn.ModuleList(networks) if members > 1 else networks[0])
    torch.jit.script(network.eval()).save(tmp_path / "model.ts")
    inferer = inferer_of(maps=MAPS, localiser_threshold=0.1, liver_threshold=0.1)
    volume = body(40, 36, 30)
    expected = inferer(volume, network)
    assert expected[:, -1].unique().numel() > 2  # probabilities of the tumour network, which is run last
    torch.testing.assert_close(inferer(volume, torch.jit.load(tmp_path / "model.ts").eval()), expected)


def test_tumour_never_leaves_the_liver():
    network = Stages()
    network.tumour = Constant(3.0)
    volume = body(40, 36, 30)
    liver = inferer_of(stage="liver")(volume, network)
    assert torch.equal(inferer_of()(volume, network), 2 * liver)


def test_windows_that_miss_the_liver_are_not_run():
    network, volume = Stages(), body(40, 36, 30)
    inferer = inferer_of(tumour=(4, 4, 4), tumour_overlap=0.0)
    inferer(volume, network)
    run = sum(size[0] for size in network.tumour.sizes)
    assert run == inferer.report["windows"]["tumour"] and set(size[2:] for size in network.tumour.sizes) == {(4, 4, 4)}
    mask = inferer_of(stage="liver")(volume, network)[0, 0].numpy() > 0
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = [(max(one[0] - 2, 0), min(one[-1] + 3, length)) for one, length in zip(spans, mask.shape)]
    starts = [[*range(first, last - 4, 4), last - 4] for first, last in box]
    hit = [mask[x : x + 4, y : y + 4, z : z + 4].any() for x in starts[0] for y in starts[1] for z in starts[2]]
    assert run == sum(hit) < len(hit)


def test_only_boxes_are_held_as_float(monkeypatch):
    volume, network = body(120, 100, 60, liver=((0.3, 0.5, 0.5), (0.1, 0.12, 0.2)), spleen=0), Stages()
    held, make = [], torch.zeros

    def counted(*args, **kwargs):
        made = make(*args, **kwargs)
        held.append(made)
        return made

    monkeypatch.setattr(torch, "zeros", counted)
    result = inferer_of()(volume, network)
    assert result.dtype == torch.uint8 and set(result.unique().tolist()) == {0, 1, 2}
    floats = [made.numel() for made in held if made.is_floating_point()]
    assert floats and max(floats) < 0.2 * volume.numel()
    assert max(size[2] * size[3] * size[4] for size in network.liver.sizes) < 0.2 * volume.numel()
    assert sum(made.numel() == volume.numel() for made in held) == 1


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_widened(half):
    class Half(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, windows):
            return self.inner(windows).to(half)

    volume, network = body(40, 36, 30), Stages()
    expected = inferer_of()(volume, network)
    network.localiser, network.liver, network.tumour = map(Half, (network.localiser, network.liver, network.tumour))
    result = inferer_of(maps=("liver_probability",))(volume, network)
    assert result.dtype == torch.float32 and (result[:, 0] == expected[:, 0]).float().mean() > 0.99


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same():
    volume, network = body(40, 36, 30), Stages()
    expected = inferer_of(maps=MAPS)(volume, network)
    result = inferer_of(maps=MAPS)(volume.cuda(), network.cuda())
    assert result.is_cuda and torch.equal(result[:, :3].cpu(), expected[:, :3])
    torch.testing.assert_close(result[:, 3:].cpu(), expected[:, 3:], atol=1e-4, rtol=0)
