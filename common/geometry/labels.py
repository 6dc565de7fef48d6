"""Label volumes of which only a part is labelled."""

from __future__ import annotations

import numpy as np
import torch
from monai.networks.utils import one_hot
from monai.utils import convert_to_tensor
from torch.nn import functional as F

from ..checks import InputError, problem

__all__ = ["check_labels", "labelled_slices", "split_ignore"]


def check_labels(label: torch.Tensor, num_classes: int, ignore_index: int) -> None:
    """Refuse labels that are neither a class nor the mark of unlabelled voxels.

    Looks only at tensors in host memory. On an accelerator reading the answer would make the host wait at every step;
    there the indexing kernels' own assertion stops the program on such a label.

    Args:
        label: integer labels of any shape and dtype.
        num_classes: classes 0 .. num_classes - 1.
        ignore_index: label of unlabelled voxels, inside or outside that range.

    Raises:
        InputError: naming the labels found.
    """
    if label.device.type != "cpu":
        return
    good = ((label >= 0) & (label < num_classes) & (label == label.long())) | (label == ignore_index)
    if bool(good.all()):
        return
    found = torch.unique(label[~good]).tolist()
    shown = ", ".join(f"{value:g}" for value in found[:5]) + (", ..." if len(found) > 5 else "")
    rule = f"labels must be whole numbers from 0 to {num_classes - 1}, or {ignore_index} where nothing is labelled"
    raise InputError(
        problem(f"the label holds {shown}", rule, "map the labels to classes or set num_classes and ignore_index")
    )


def split_ignore(label: torch.Tensor, num_classes: int, ignore_index: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """One-hot classes and the mask of labelled voxels, from labels of which a part is unlabelled.

    Args:
        label: integer labels of any dtype, B 1 and spatial axes.
        num_classes: K; classes are 0 .. K - 1.
        ignore_index: label of unlabelled voxels, inside or outside 0 .. K - 1.

    Returns:
        one-hot float32, B K ..., zero in every channel where unlabelled; mask bool, B 1 ..., True where labelled.

    Raises:
        InputError: if the channel axis is not one, or a label is no class (see :func:`check_labels`).

    >>> one_hot, mask = split_ignore(torch.tensor([[[0, 3, 1]]]), num_classes=2)
    >>> one_hot.tolist(), mask.tolist()
    ([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]], [[[True, False, True]]])
    """
    if label.ndim < 2 or label.shape[1] != 1:
        came = f"the label has shape {tuple(label.shape)}"
        raise InputError(problem(came, "it must be (batch, 1, ...)", "give it one channel of integer labels"))
    label = convert_to_tensor(label, track_meta=False)
    check_labels(label, num_classes, ignore_index)
    mask = label != ignore_index
    return one_hot(torch.where(mask, label, 0), num_classes) * mask, mask


def labelled_slices(
    label: torch.Tensor | np.ndarray, ignore_index: int = 3, axis: int = 0, share: float = 0.25
) -> list[int]:
    """Indices of the planes along an axis that an annotator worked on.

    A plane between annotated ones is not empty: annotated planes of the other two axes cross it in lines. Lines (alone,
    in pairs, or crossing each other) hold no 3x3 square of labelled voxels; an annotated plane does, even if only a
    part of it is labelled.

    Reading: a plane counts as annotated when its voxels at the centre of a wholly labelled 3x3 square are at least
    `share` of as many as in the fullest plane of any axis (as fractions of the plane). So a plane of which a quarter is
    labelled counts beside full ones, and a slab of three or more neighbouring planes makes no plane of another axis
    count, up to a quarter of the volume. In a densely labelled volume every plane counts.

    Args:
        label: integer labels, D H W, or with one channel in front.
        ignore_index: label of unlabelled voxels.
        axis: spatial axis (0, 1 or 2) across which the planes lie.
        share: smallest part, relative to the fullest plane, in (0, 1].

    Returns:
        ascending indices along `axis`; empty where nothing (or no more than lines) is labelled.

    Raises:
        InputError: for a label that is no volume, or an axis that is not spatial.
    """
    volume = convert_to_tensor(label, track_meta=False)
    if volume.ndim == 4 and volume.shape[0] == 1:
        volume = volume[0]
    if volume.ndim != 3:
        came = f"the label has shape {tuple(label.shape)}"
        raise InputError(problem(came, "it must be (D, H, W) or (1, D, H, W)", "take one case and one channel"))
    if axis not in (0, 1, 2):
        raise InputError(problem(f"axis is {axis!r}", "it must be 0, 1 or 2", "count the spatial axes only"))
    unlabelled = (volume == ignore_index).float()[None, None]
    filled = [_filled_share(unlabelled, across) for across in range(3)]
    fullest = max(float(f.max()) for f in filled)
    if fullest == 0.0:
        return []
    return torch.nonzero(filled[axis] >= share * fullest).flatten().tolist()


def _filled_share(unlabelled: torch.Tensor, axis: int) -> torch.Tensor:
    # Beyond the border nothing is unlabelled (pooling pads with minus infinity): so narrow planes count too.
    kernel = [1 if a == axis else 3 for a in range(3)]
    touched = F.max_pool3d(unlabelled, kernel, stride=1, padding=[k // 2 for k in kernel])[0, 0]
    return 1.0 - touched.mean(dim=[a for a in range(3) if a != axis])
