"""Parts of annotated slices: disjoint, complete, spread; dense and sparse labels; errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.geometry.slice_groups import split_slices, spread_slices
from common.transforms.annotated import AnnotatedSlices, AnnotatedSlicesd, labelled_share

SHAPE = (24, 20, 32)
XENOPUS = (7, 5, 21)


def dense(shape=SHAPE):
    return torch.randint(0, 3, (1, *shape), generator=torch.manual_seed(0), dtype=torch.uint8)


def sparse(slices=XENOPUS, shape=SHAPE):
    """A label with so many annotated planes per axis, hidden by hand."""
    label, seen = dense(shape), torch.zeros(1, *shape, dtype=torch.bool)
    for axis, count in enumerate(slices, start=1):
        for index in spread_slices(count, shape[axis - 1]):
            seen.select(axis, index)[:] = True
    label[~seen] = 3
    return label


@pytest.mark.parametrize("size", [1, 7, 56, 248])
def test_planes_are_spread_evenly(size):
    for count in range(1, size + 1, max(size // 9, 1)):
        planes = spread_slices(count, size)
        gaps = np.diff([-planes[0] - 1, *planes, 2 * size - planes[-1]])  # with the border as a mirror
        assert len(set(planes)) == count and min(planes) >= 0 and max(planes) < size
        assert gaps.max() - gaps.min() <= 2 and np.ptp(np.diff(planes) if count > 1 else [0]) <= 1


def test_the_paper_s_33_planes():
    label = dense((248, 244, 64))
    shown = AnnotatedSlices("train", XENOPUS)(label)
    planes = [spread_slices(count, size) for count, size in zip(XENOPUS, (248, 244, 64), strict=True)]
    assert [len(p) for p in planes] == [7, 5, 21] and sum(map(len, planes)) == 33
    expected = torch.zeros_like(label, dtype=torch.bool)
    expected[:, planes[0]] = expected[:, :, planes[1]] = expected[..., planes[2]] = True
    assert torch.equal(shown != 3, expected) and torch.equal(shown[expected], label[expected])
    hidden = (1 - 7 / 248) * (1 - 5 / 244) * (1 - 21 / 64)
    assert labelled_share(shown) == pytest.approx(1 - hidden)


@pytest.mark.parametrize("slices", [(7, 5, 21), (0, 0, 4), (1, 0, 1), (23, 0, 0)])
def test_slices_without_folds(slices):
    label = dense()
    train, held_out, every = (AnnotatedSlices(part, slices)(label) for part in ("train", "held_out", "all"))
    assert torch.equal(train, every)
    assert torch.equal((train != 3) ^ (held_out != 3), torch.ones_like(label, dtype=torch.bool))
    assert torch.equal(torch.minimum(train, held_out), label)
    counts = [sum((train != 3).select(axis, index).all() for index in range(label.shape[axis])) for axis in (1, 2, 3)]
    assert counts == list(slices)


@pytest.mark.parametrize("source", [sparse(), sparse((0, 0, 9)), sparse((3, 2, 0))])
@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_of_an_annotated_label(source, folds):
    everything = source != 3
    held = []
    for fold in range(folds):
        train = AnnotatedSlices("train", fold=fold, folds=folds)(source) != 3
        out = AnnotatedSlices("held_out", fold=fold, folds=folds)(source) != 3
        assert train.any() and out.any() and not (train & out).any()
        assert torch.equal(train | out, everything)  # a voxel on a held-out plane only, or on some training plane
        held.append(out)
    # across the folds, what lies on one plane alone is held out exactly once; crossings never more than once a plane
    total = torch.stack(held).sum(0)
    planes = sum(
        torch.zeros_like(source, dtype=torch.long).index_fill(axis, torch.tensor(found, dtype=torch.long), 1)
        for axis, found in enumerate(
            ([i for i in range(source.shape[a]) if everything.select(a, i).all()] for a in (1, 2, 3)), start=1
        )
    )
    assert (total[planes == 1] == 1).all() and (total <= 1).all() and not total[planes == 0].any()
    assert torch.equal(AnnotatedSlices("all", folds=folds)(source), source)


def test_folds_of_slices_taken_from_a_dense_label():
    label = dense()
    from_dense = [AnnotatedSlices(p, XENOPUS, 1, 3)(label) for p in ("train", "held_out", "all")]
    from_sparse = [AnnotatedSlices(p, None, 1, 3)(sparse()) for p in ("train", "held_out", "all")]
    assert all(torch.equal(a, b) for a, b in zip(from_dense, from_sparse, strict=True))


@pytest.mark.parametrize("counts", [(7, 5, 21), (6, 7, 12), (4, 5, 10), (1, 1, 1), (0, 2, 3), (13, 0, 0)])
@pytest.mark.parametrize("folds", [2, 3])
def test_groups_are_balanced_and_spread(counts, folds):
    planes = [list(range(0, 3 * count, 3)) for count in counts]
    for seed in range(5):
        groups = split_slices(planes, folds, seed)
        for axis, of_axis in enumerate(planes):
            assert sorted(itertools.chain(*(group[axis] for group in groups))) == of_axis
            if len(of_axis) >= folds:
                assert all(group[axis] for group in groups)
                for group in groups:  # nowhere a long stretch without a plane of the group
                    assert np.diff(group[axis]).max(initial=0) <= 3 * (2 * folds - 1)
        sizes = [sum(map(len, group)) for group in groups]
        assert max(sizes) - min(sizes) <= 1
        assert groups == split_slices(planes, folds, seed)
    assert any(split_slices(planes, folds, 0) != split_slices(planes, folds, seed) for seed in range(1, 9))


@pytest.mark.parametrize("part", ["train", "held_out", "all"])
def test_without_slices_and_folds_the_label_is_as_it_was(part):
    for label in (dense(), sparse()):
        assert torch.equal(AnnotatedSlices(part)(label), label)


def test_other_ignore_index_types_and_metadata():
    label = MetaTensor(sparse().float(), affine=torch.diag(torch.tensor([2.0, 2, 3, 1])), meta={"filename_or_obj": "x"})
    label[label == 3] = 255
    before = label.clone()
    data = {"label": label, "image": "untouched"}
    shown = AnnotatedSlicesd("label", "held_out", fold=2, folds=3, ignore_index=255)(data)
    assert shown["image"] == "untouched" and shown["label"].dtype == torch.float32
    assert isinstance(shown["label"], MetaTensor) and torch.equal(shown["label"].affine, label.affine)
    assert set(shown["label"].unique().tolist()) == {0, 1, 2, 255} and torch.equal(label, before)
    array = AnnotatedSlicesd("label", "train", (2, 2, 2))({"label": dense().numpy()})["label"]
    assert torch.equal(array, AnnotatedSlices("train", (2, 2, 2))(dense()))


@pytest.mark.parametrize("slices", [(3, 3, 5), (6, 5, 20), (1, 0, 2)])
def test_slices_of_a_sparse_label_are_annotated_ones(slices):
    source = sparse()
    everything = source != 3
    train, held_out = (AnnotatedSlices(part, slices)(source) != 3 for part in ("train", "held_out"))
    whole = [[i for i in range(SHAPE[a - 1]) if train.select(a, i).all()] for a in (1, 2, 3)]
    annotated = [spread_slices(count, size) for count, size in zip(XENOPUS, SHAPE, strict=True)]
    assert tuple(map(len, whole)) == slices
    for chosen, of_axis in zip(whole, annotated, strict=True):
        places = [of_axis.index(plane) for plane in chosen]  # each is annotated
        assert np.ptp(np.diff(places)) <= 1 if len(places) > 1 else True
    assert torch.equal(train ^ held_out, everything) and not (train & held_out).any()


@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize(
    "block",
    [
        (slice(10, 30), slice(10, 30), slice(10, 30)),
        (slice(None), slice(None), slice(8, 28)),
        (slice(None), slice(5, 36), slice(1, 39)),
    ],
    ids=["block", "slab", "nearly all"],
)
def test_slices_of_a_dense_block_are_not_held_out_from_their_neighbours(block, folds):
    label = torch.full((1, 40, 40, 40), 3, dtype=torch.uint8)
    label[(0, *block)] = 1
    named = MetaTensor(label, meta={"filename_or_obj": "/data/jane_doe/block.nii.gz"})
    for part in ("train", "held_out"):
        with pytest.raises(InputError, match="slices of 'block.nii.gz' lie side by side.*must stand apart"):
            AnnotatedSlices(part, folds=folds)(named)
    # a few of its planes can be
    assert (AnnotatedSlices("held_out", (0, 0, 5), folds=folds)(named) != 3).any()


def test_pairs_of_neighbouring_slices_are_no_block():
    label = torch.full((1, 40, 40, 40), 3, dtype=torch.uint8)
    label[..., [4, 5, 14, 15, 24, 25]] = 1
    assert (AnnotatedSlices("held_out", folds=3)(label) != 3).any()


def test_of_held_out_volumes_everything_is_shown():
    source = sparse()
    for slices, folds in ((None, None), ((3, 3, 5), None), ((3, 3, 5), 3)):
        assert torch.equal(AnnotatedSlices("held_out", slices, folds=folds, volume_folds=3)(source), source)
        seen = AnnotatedSlices("train", slices, folds=folds, volume_folds=3)(source)
        assert torch.equal(seen, AnnotatedSlices("train", slices, folds=folds)(source))


def test_arguments_as_a_command_line_gives_them():
    for none in ("None", "null"):
        named = AnnotatedSlices("train", none, "1", "3", volume_folds=none)(sparse())
        assert torch.equal(named, AnnotatedSlices("train", None, 1, 3)(sparse()))
    for text in ("[7,5,21]", "(7, 5, 21)", "7,5,21"):
        assert torch.equal(AnnotatedSlices("train", text)(dense()), AnnotatedSlices("train", XENOPUS)(dense()))
    assert torch.equal(AnnotatedSlices("train", None, 0, "None")(sparse()), sparse())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fold": 3, "folds": 3}, "fold 3 of folds 3.*from 0 to folds - 1"),
        ({"fold": -1, "folds": 3}, "fold -1 of folds 3"),
        ({"folds": 1}, "folds must be at least 2"),
        ({"part": "test"}, "part 'test' was given.*train, held_out, all"),
        ({"slices": 5}, "three numbers of planes"),
        ({"slices": "five"}, "slices is 'five'"),
        ({"slices": (1, 2)}, "three numbers of planes"),
        ({"slices": (0, 0, 0)}, "not all 0"),
        ({"slices": (1, -1, 2)}, "three numbers of planes"),
    ],
)
def test_arguments_out_of_range(options, text):
    with pytest.raises(InputError, match=text):
        AnnotatedSlices(**options)


@pytest.mark.parametrize(
    ("label", "options", "text"),
    [
        (dense(), {"slices": (25, 1, 1)}, r"slices \(25, 1, 1\).*'kidney.nii'.*\(24, 20, 32\).*more slices than"),
        (sparse((1, 0, 1)), {"folds": 3}, "'kidney.nii' has 2 annotated slices and folds 3.*annotate more slices"),
        (dense(), {"slices": (0, 1, 1), "folds": 3}, "'kidney.nii' has 2 annotated slices and folds 3"),
        (dense(), {"folds": 3}, "slices of 'kidney.nii' lie side by side, as in a dense label.*give slices"),
        (
            sparse(),
            {"slices": (3, 6, 5)},
            r"slices \(3, 6, 5\).*'kidney.nii' has \(7, 5, 21\) annotated slices per axis",
        ),
        (torch.full((1, *SHAPE), 3), {}, r"nothing is labelled in 'kidney.nii'.*differ from 3"),
        (dense(), {"part": "held_out", "slices": (24, 0, 0)}, "in the part 'held_out' of 'kidney.nii'"),
        (dense()[0], {}, r"'kidney.nii' has shape \(24, 20, 32\).*\(1, D, H, W\)"),
    ],
)
def test_labels_that_do_not_fit(label, options, text):
    with pytest.raises(InputError, match=text):
        AnnotatedSlices(**options)(MetaTensor(label, meta={"filename_or_obj": "kidney.nii"}))


PLANES = [[], [4], [3, 17]]


def on_planes(planes, shape=SHAPE):
    mask = torch.zeros(1, *shape, dtype=torch.bool)
    for axis, of_axis in enumerate(planes, start=1):
        for index in of_axis:
            mask.select(axis, index)[:] = True
    return mask


@pytest.mark.parametrize("planes", [PLANES, "[[], [4], [17, 3, 3]]", ((), (4,), (3.0, 17))], ids=str)
@pytest.mark.parametrize("source", [sparse((3, 2, 5)), dense()], ids=["slices", "dense"])
def test_planes_held_out_by_number_are_hidden_whole(source, planes):
    # (3, 2, 5) slices lie on 4, 12, 20 | 5, 15 | 3, 9, 16, 22, 28: plane 4 of axis 1 and 17 hold crossings only
    train, held_out, every = (AnnotatedSlices(part, held_out=planes)(source) for part in ("train", "held_out", "all"))
    mask = on_planes(PLANES)
    assert torch.equal(every, source)
    assert torch.equal(train, source.masked_fill(mask, 3)) and torch.equal(held_out, source.masked_fill(~mask, 3))


def test_planes_of_other_volumes_are_shown():
    source, planes = sparse(), PLANES
    assert torch.equal(AnnotatedSlices("held_out", held_out=planes, volume_folds=2)(source), source)
    train = AnnotatedSlices("train", held_out=planes, volume_folds=2)(source)
    assert torch.equal(train, source.masked_fill(on_planes(planes), 3))


@pytest.mark.parametrize("none", [None, "None", "null"])
def test_no_planes_held_out(none):
    for part in ("train", "held_out"):
        assert torch.equal(AnnotatedSlices(part, held_out=none)(sparse()), sparse())


@pytest.mark.parametrize(
    "options",
    [{"held_out": [[], [5], [9]]}, {"folds": 3, "fold": 1}, {"slices": (2, 1, 3)}, {"slices": (3, 2, 5), "folds": 2}],
    ids=str,
)
def test_seeds_are_what_training_sees(options):
    source = MetaTensor(sparse((3, 2, 5)), meta={"filename_or_obj": "kidney.nii"})
    shown = AnnotatedSlicesd("label", "held_out", seeds_key="seeds", **options)({"label": source})
    assert torch.equal(shown["seeds"], AnnotatedSlices("train", **options)(source))
    assert torch.equal(shown["label"], AnnotatedSlices("held_out", **options)(source))
    assert shown["seeds"].meta["filename_or_obj"] == "kidney.nii" and shown["seeds"].dtype == source.dtype
    assert not ((shown["seeds"] != 3) & (shown["label"] != 3)).any()
    for part, key in (("train", "seeds"), ("all", "seeds"), ("held_out", None), ("held_out", "None")):
        assert set(AnnotatedSlicesd("label", part, seeds_key=key, **options)({"label": source})) == {"label"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"folds": 3, "volume_folds": 3}, "seeds_key 'seeds' was given and no slices of a volume are held out"),
        ({}, "seeds_key 'seeds' was given and no slices.*would be all that is scored.*give held_out"),
        ({"folds": 3, "keys": ("label", "other")}, "seeds_key 'seeds' was given for the keys label, other"),
        ({"folds": 3, "keys": "seeds"}, "for the keys seeds: it must be a key of its own"),
    ],
)
def test_seeds_that_would_be_the_answer(options, text):
    with pytest.raises(InputError, match=text):
        AnnotatedSlicesd(**{"keys": "label", "part": "held_out", "seeds_key": "seeds", **options})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"held_out": [[1], [], []], "folds": 3}, "held_out and folds 3 were given.*not both.*give slices None"),
        ({"held_out": [[1], [], []], "slices": (1, 1, 1)}, r"held_out and slices \(1, 1, 1\) were given"),
        ({"held_out": [[], [], []]}, r"held_out is \[\[\], \[\], \[\]\]: it must be three lists.*not all empty"),
        ({"held_out": [[-1], [], [2]]}, "held_out is .*counted from 0"),
        ({"held_out": [3, 4, 5]}, r"held_out is \[3, 4, 5\]: it must be three lists"),
        ({"held_out": [[1], [2]]}, "it must be three lists"),
        ({"held_out": "first"}, "held_out is 'first': it must be three lists"),
        ({"held_out": [[0.5], [], []]}, "held_out is 0.5: it must be a whole number"),
    ],
)
def test_planes_that_can_not_be(options, text):
    with pytest.raises(InputError, match=text):
        AnnotatedSlices(**options)


@pytest.mark.parametrize(
    ("part", "planes", "text"),
    [
        (
            "train",
            [[24], [], []],
            r"held_out \[\[24\], \[\], \[\]\] was given and 'kidney.nii' has \(24, 20, 32\) planes",
        ),
        ("held_out", [[0], [], []], "in the part 'held_out' of 'kidney.nii'.*or held_out"),
        ("train", [[12], [10], []], "in the part 'train' of 'kidney.nii'"),
    ],
)
def test_planes_that_do_not_fit_the_label(part, planes, text):
    label = MetaTensor(sparse((1, 1, 0)), meta={"filename_or_obj": "kidney.nii"})  # planes 12 and 10
    if planes == [[0], [], []]:
        label[:, 0] = 3
    with pytest.raises(InputError, match=text):
        AnnotatedSlices(part, held_out=planes)(label)
