"""Splitting off unlabelled voxels, and finding the planes that were annotated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.checks import InputError
from common.geometry.labels import labelled_slices, split_ignore


def dense(size: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    return torch.randint(3, size, generator=torch.Generator().manual_seed(seed))


def annotate(label: torch.Tensor, planes: tuple[list[int], list[int], list[int]]) -> torch.Tensor:
    """Keep the planes listed for each axis; all else becomes 3."""
    kept = torch.zeros(label.shape, dtype=torch.bool)
    for axis, indices in enumerate(planes):
        kept.index_fill_(axis, torch.tensor(indices, dtype=torch.long), True)
    return torch.where(kept, label, 3)


def spread(count: int, size: int) -> list[int]:
    return [int((i + 0.5) * size / count) for i in range(count)]


class TestSplitIgnore:
    @pytest.mark.parametrize("num_classes, ignore_index", [(3, 3), (3, 255), (3, -1), (4, 1)])
    @pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.int16])
    def test_voxel_by_voxel(self, num_classes, ignore_index, dtype):
        label = torch.randint(num_classes, (2, 1, 3, 4, 5)).to(dtype)
        label[:, :, 1] = ignore_index
        one_hot, mask = split_ignore(label, num_classes, ignore_index)
        assert one_hot.dtype == torch.float32 and mask.dtype == torch.bool
        assert torch.equal(mask, label != ignore_index)
        for k in range(num_classes):
            assert torch.equal(one_hot[:, k : k + 1], ((label == k) & mask).float())

    def test_metatensor_gives_plain_tensors(self):
        one_hot, mask = split_ignore(MetaTensor(torch.zeros(1, 1, 2, 2, 2)), 2)
        assert type(one_hot) is torch.Tensor and type(mask) is torch.Tensor

    def test_errors(self):
        with pytest.raises(InputError, match="the label holds 4, 7: .* from 0 to 2, or 3 where nothing is labelled"):
            split_ignore(torch.tensor([[[0, 4, 7, 3]]]), 3)
        with pytest.raises(InputError, match="the label holds 1.5"):
            split_ignore(torch.tensor([[[0, 1.5]]]), 3)
        with pytest.raises(InputError, match=r"shape \(2, 3, 3, 3\): it must be \(batch, 1, ...\)"):
            split_ignore(torch.zeros(2, 3, 3, 3), 3)


class TestLabelledSlices:
    @pytest.mark.parametrize("counts", [(7, 5, 21), (1, 1, 1), (2, 2, 1), (5, 5, 3), (0, 0, 4), (6, 0, 0)])
    @pytest.mark.parametrize("kind", ["torch", "numpy", "channel", "meta"])
    def test_orthogonal_annotation(self, counts, kind):
        size = (41, 36, 64)
        planes = tuple(spread(count, n) for count, n in zip(counts, size, strict=True))
        label = annotate(dense(size), planes)
        label = {
            "torch": label,
            "numpy": label.numpy().astype(np.uint8),
            "channel": label[None],
            "meta": MetaTensor(label[None].float()),
        }[kind]
        assert [labelled_slices(label, 3, axis) for axis in range(3)] == list(planes)

    @pytest.mark.parametrize("planes", [([0, 39], [0, 1], [23]), ([10, 11], [3, 5, 7, 9], [0]), ([4], [8, 9, 10], [])])
    def test_neighbouring_and_border_planes(self, planes):
        label = annotate(dense((40, 30, 24)), planes)
        assert [labelled_slices(label, 3, axis) for axis in range(3)] == list(planes)

    def test_every_second_plane(self):
        planes = (list(range(0, 40, 2)), [], list(range(1, 24, 2)))
        label = annotate(dense((40, 30, 24)), planes)
        assert [labelled_slices(label, 3, axis) for axis in range(3)] == list(planes)

    @pytest.mark.parametrize("size", [(9, 8, 7), (20, 6, 1), (5, 2, 5)])
    def test_dense_label(self, size):
        assert [labelled_slices(dense(size), 3, axis) for axis in range(3)] == [list(range(n)) for n in size]

    def test_dense_label_with_doubtful_voxels(self):
        label = dense((24, 20, 16))
        label[5:14, 6:14, 4:12] = 3
        label[torch.rand(label.shape, generator=torch.Generator().manual_seed(5)) < 0.05] = 3
        assert [labelled_slices(label, 3, axis) for axis in range(3)] == [list(range(n)) for n in label.shape]

    def test_slices_of_which_half_is_labelled(self):
        planes = ([6, 20, 33], [5, 17], [4, 12, 19])
        label = annotate(dense((40, 30, 24)), planes)
        label[6, :, 12:] = 3  # half a plane, but for no line of another
        label[:20, :, 12] = 3
        label[20:, 17, :] = 3
        assert [labelled_slices(label, 3, axis) for axis in range(3)] == list(planes)

    def test_other_marks(self):
        label = annotate(dense((20, 20, 20)), ([3], [], [8])) % 3
        label[label == 2] = 0
        assert labelled_slices(label, 255, 0) == list(range(20))
        marked = torch.where(annotate(torch.zeros(20, 20, 20, dtype=torch.long), ([3], [], [8])) == 3, -1, label)
        assert labelled_slices(marked, -1, 0) == [3] and labelled_slices(marked, -1, 2) == [8]

    def test_nothing_but_lines(self):
        label = torch.full((12, 12, 12), 3)
        assert labelled_slices(label) == []
        label[4, 5, :] = 1
        label[:, 5, 6] = 1
        assert labelled_slices(label, 3, 0) == labelled_slices(label, 3, 1) == labelled_slices(label, 3, 2) == []

    def test_share_decides_about_fragments(self):
        label = annotate(dense((20, 20, 20)), ([3], [], []))
        label[9, :7, :10] = 0
        assert labelled_slices(label, 3, 0) == [3]
        assert labelled_slices(label, 3, 0, share=0.1) == [3, 9]

    def test_errors(self):
        with pytest.raises(InputError, match="axis is 3: it must be 0, 1 or 2"):
            labelled_slices(torch.zeros(4, 4, 4), 3, 3)
        with pytest.raises(InputError, match=r"shape \(2, 4, 4, 4\): it must be \(D, H, W\) or \(1, D, H, W\)"):
            labelled_slices(torch.zeros(2, 4, 4, 4))
