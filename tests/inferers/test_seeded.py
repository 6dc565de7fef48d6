"""Rivals without a network: drawn voxels stay, metadata and units, random walks by their mathematics, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.geometry.slice_interpolation import interpolate_slices
from common.inferers.seeded import RandomWalkerInferer, ShapeInterpolationInferer

HIDDEN = 9
INFERERS = [ShapeInterpolationInferer, RandomWalkerInferer]


def scene(shape=(11, 9, 8), classes=3, batch=2, channels=2):
    """Random images, and seeds: planes of random labels."""
    generator = torch.Generator().manual_seed(5)
    image = torch.rand(batch, channels, *shape, generator=generator)
    dense = torch.randint(0, classes, (batch, 1, *shape), generator=generator, dtype=torch.uint8)
    seen = torch.zeros(shape, dtype=torch.bool)
    seen[3] = seen[:, 4] = True
    return image, torch.where(seen, dense, HIDDEN)


@pytest.mark.parametrize("inferer", INFERERS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_drawn_voxels_stay_and_every_voxel_is_filled(inferer, dtype):
    image, seeds = scene()
    labels = inferer(3, HIDDEN)(image, torch.nn.Identity(), seeds=seeds.to(dtype))
    assert labels.shape == seeds.shape and labels.dtype == torch.uint8
    drawn = seeds != HIDDEN
    assert torch.equal(labels[drawn], seeds[drawn]) and set(labels.unique().tolist()) == {0, 1, 2}
    for item in range(2):  # each volume by itself
        assert torch.equal(labels[item], inferer(3, HIDDEN)(image[item : item + 1], seeds=seeds[item : item + 1])[0])


@pytest.mark.parametrize("inferer", INFERERS)
def test_probabilities_add_up_and_agree_with_labels(inferer):
    image, seeds = scene()
    seeds[seeds == 1] = 3  # a class without seeds
    shares = inferer(4, HIDDEN, output="probabilities")(image, seeds=seeds)
    assert shares.shape == (2, 4, 11, 9, 8) and shares.dtype == torch.float32
    torch.testing.assert_close(shares.sum(1), torch.ones(2, 11, 9, 8))
    assert shares.min() >= 0 and (shares[:, 1] == 0).all()
    labels = inferer(4, HIDDEN)(image, seeds=seeds)
    assert torch.equal(shares.gather(1, labels.long())[:, 0], shares.amax(1))
    drawn = (seeds != HIDDEN)[:, 0]
    assert (shares.amax(1)[drawn] == 1).all() and (shares.amax(1)[~drawn] < 1).any()


@pytest.mark.parametrize("inferer", INFERERS)
def test_metadata_are_the_image_s(inferer):
    image, seeds = scene(batch=1)
    affine = torch.tensor([[0, -2.0, 0, 5], [0.5, 0, 0, -3], [0, 0, -3.0, 7], [0, 0, 0, 1]])
    case = MetaTensor(image, affine=affine, meta={"filename_or_obj": "kidney.nii"})
    labels = inferer(3, HIDDEN)(case, seeds=MetaTensor(seeds))
    assert isinstance(labels, MetaTensor) and labels.meta["filename_or_obj"] == "kidney.nii"
    assert torch.equal(labels.affine, affine)
    # the array's axes are 0.5, 2 and 3 long
    assert torch.equal(labels.as_tensor(), inferer(3, HIDDEN, spacing=(0.5, 2, 3))(image, seeds=seeds))
    assert not torch.equal(labels.as_tensor(), inferer(3, HIDDEN)(image, seeds=seeds))


@pytest.mark.parametrize("inferer", INFERERS)
def test_volumes_of_a_batch_have_their_own_spacing(inferer):
    image, seeds = scene()
    affines = [torch.diag(torch.tensor([*spacing, 1.0])) for spacing in ((1, 1, 1), (0.5, 2, 3))]
    batch = MetaTensor(image, affine=torch.stack(affines))
    batch.is_batch = True
    labels = inferer(3, HIDDEN)(batch, seeds=seeds)
    for item, spacing in enumerate([(1, 1, 1), (0.5, 2, 3)]):
        alone = inferer(3, HIDDEN, spacing=spacing)(image[item : item + 1], seeds=seeds[item : item + 1])
        assert torch.equal(labels[item].as_tensor(), alone[0])


@pytest.mark.parametrize("inferer", INFERERS)
def test_the_unit_of_length_and_of_grey_values_means_nothing(inferer):
    image, seeds = scene()
    labels = inferer(3, HIDDEN, spacing=(1, 2, 3))(image, seeds=seeds)
    assert torch.equal(inferer(3, HIDDEN, spacing=(1e-5, 2e-5, 3e-5))(image, seeds=seeds), labels)
    assert torch.equal(inferer(3, HIDDEN, spacing=(1, 2, 3))(image * 4096 - 1024, seeds=seeds), labels)


@pytest.mark.parametrize("inferer", INFERERS)
@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_one_class_and_everything_drawn(inferer, output):
    image, seeds = scene()
    one = torch.where(seeds == HIDDEN, HIDDEN, 2)
    filled = inferer(3, HIDDEN, output)(image, seeds=one)
    assert (filled == 2).all() if output == "labels" else (filled[:, 2] == 1).all()
    every = torch.where(seeds == HIDDEN, 0, seeds)
    filled = inferer(3, HIDDEN, output)(image, seeds=every)
    assert torch.equal(filled if output == "labels" else filled.argmax(1, keepdim=True), every.to(filled.dtype))


def test_interpolation_is_certain_on_planes_and_flat_away_from_them():
    dense = torch.zeros(1, 1, 12, 12, 21, dtype=torch.uint8)
    dense[:, :, 6:] = 1
    seeds = torch.full_like(dense, HIDDEN)
    seeds[..., 0], seeds[..., 20] = dense[..., 0], dense[..., 20]
    shares = ShapeInterpolationInferer(2, HIDDEN, "probabilities")(dense.float(), seeds=seeds)
    # half a voxel inside, with distances 10 and 10 to the planes: s = 5, and both classes' distances differ by 1
    assert float(shares[0, 1, 6, 3, 10]) == pytest.approx(1 / (1 + np.exp(-1 / 5)), abs=1e-4)
    certain = shares[0].amax(0)[6, 3]
    assert torch.equal(certain[:11].sort(descending=True).values, certain[:11]) and certain[0] == 1
    distances, _ = interpolate_slices(seeds[0, 0], 2, HIDDEN)
    assert torch.equal(shares[0].argmax(0), distances.argmax(0))


@pytest.mark.parametrize("mode", ["cg_j", "bf"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_without_edges_walks_between_two_planes_end_in_proportion_to_the_distance(mode, axis):
    shape = [3, 4, 2]
    shape[axis] = 9
    seeds = torch.full((1, 1, *shape), HIDDEN)
    seeds.select(axis + 2, 0)[:], seeds.select(axis + 2, 8)[:] = 0, 2
    walker = RandomWalkerInferer(3, HIDDEN, "probabilities", mode=mode, tolerance=1e-8)
    shares = walker(torch.full((1, 1, *shape), 7.0), seeds=seeds)
    expected = (torch.arange(9.0) / 8).view([-1 if a == axis else 1 for a in range(3)]).expand(shape)
    torch.testing.assert_close(shares[0, 2], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(shares[0, 0], 1 - expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channel", [0, 1])
def test_walks_stop_at_an_edge_of_any_channel(channel):
    x, y, z = torch.meshgrid(*[torch.arange(n) for n in (14, 12, 10)], indexing="ij")
    blob = ((x - 6) ** 2 + (y - 5) ** 2 + (z - 4) ** 2 < 12).long()
    image = torch.zeros(1, 2, 14, 12, 10)
    image[0, channel] = blob * 300.0
    seeds = torch.full((1, 1, 14, 12, 10), HIDDEN)
    seeds[0, 0, 6, 5, 4], seeds[0, 0, 0, 0, 0] = 1, 0
    labels = RandomWalkerInferer(2, HIDDEN)(image, seeds=seeds)
    assert torch.equal(labels[0, 0].long(), blob)


def test_where_no_walk_arrives_the_nearest_seed_decides():
    # a bright box that hides what is in it behind edges that no walk passes, with seeds outside only
    image = torch.zeros(1, 1, 20, 9, 9)
    image[:, :, 8:13, 2:7, 2:7] = 1.0
    seeds = torch.full((1, 1, 20, 9, 9), HIDDEN)
    seeds[:, :, 0], seeds[:, :, 19] = 0, 1
    shares = RandomWalkerInferer(2, HIDDEN, "probabilities", beta=1e5)(image, seeds=seeds)
    torch.testing.assert_close(shares.sum(1), torch.ones(1, 20, 9, 9))
    inside = shares[0, 1, 8:13, 4, 4]
    assert inside.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("inferer", "options", "text"),
    [
        (ShapeInterpolationInferer, {"num_classes": 1}, "num_classes=1: num_classes must be 2 to 256"),
        (ShapeInterpolationInferer, {"ignore_index": 2}, "ignore_index=2: .*other than the classes 0 to 2"),
        (ShapeInterpolationInferer, {"output": "logits"}, "output must be one of labels, probabilities"),
        (ShapeInterpolationInferer, {"spacing": (1, 2)}, "spacing must be three lengths above 0"),
        (RandomWalkerInferer, {"spacing": (1, 0, 2)}, "spacing must be three lengths above 0"),
        (RandomWalkerInferer, {"beta": 0}, "beta must be a number above 0"),
        (RandomWalkerInferer, {"tolerance": 1}, "tolerance must be between 0 and 1"),
        (RandomWalkerInferer, {"mode": "fast"}, "mode must be one of cg_j, cg, cg_mg, bf"),
        (RandomWalkerInferer, {"max_voxels": 0}, "max_voxels must be at least 1"),
    ],
)
def test_arguments_out_of_range(inferer, options, text):
    with pytest.raises(InputError, match=text):
        inferer(**{"num_classes": 3, "ignore_index": HIDDEN, **options})


@pytest.mark.parametrize("inferer", INFERERS)
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda image, seeds: (image, None), "Inferer was called without seeds.*seeds_key"),
        (lambda image, seeds: (image, seeds[..., 1:]), r"seeds of \(2, 1, 11, 9, 7\) for inputs of \(2, 2, 11, 9, 8\)"),
        (lambda image, seeds: (image[0], seeds[0]), "inputs are B C D H W and seeds B 1 D H W"),
        (lambda image, seeds: (image, seeds.clamp(max=5)), "the label holds 5.*whole numbers from 0 to 2, or 9"),
        (lambda image, seeds: (image, torch.full_like(seeds, HIDDEN)), "nothing is labelled in the seeds"),
    ],
    ids=["none", "shape", "batch", "label", "empty"],
)
def test_seeds_that_do_not_fit(inferer, change, text):
    image, seeds = change(*scene())
    with pytest.raises(InputError, match=text):
        inferer(3, HIDDEN)(image, seeds=seeds)


def test_interpolation_needs_a_plane_and_the_walker_does_not():
    image, seeds = scene(batch=1)
    scribbles = torch.full_like(seeds, HIDDEN)
    scribbles[0, 0, 2, 2:6, 3], scribbles[0, 0, 7, 2:6, 3] = 0, 1
    with pytest.raises(InputError, match="no plane of the seeds is annotated"):
        ShapeInterpolationInferer(3, HIDDEN)(image, seeds=scribbles)
    assert set(RandomWalkerInferer(3, HIDDEN)(image, seeds=scribbles).unique().tolist()) == {0, 1}


def test_a_volume_too_large_for_the_walker():
    image, seeds = scene()
    with pytest.raises(InputError, match=r"volume of \(11, 9, 8\) came, 792 voxels.*takes 791 at most.*down-sample"):
        RandomWalkerInferer(3, HIDDEN, max_voxels=791)(image, seeds=seeds)
    RandomWalkerInferer(3, HIDDEN, max_voxels=792)(image, seeds=seeds)
