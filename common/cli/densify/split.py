"""Which of a volume's annotated slices are kept from training, to be scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...geometry.planes import on_planes
from ...geometry.slice_groups import split_slices

__all__ = ["beside_training", "hold_out", "trained_on"]

Planes = Sequence[Sequence[int]]

_FEWEST = 4  # annotated planes, of which one can be spared
_DRAWS = 20


def hold_out(
    label: np.ndarray,
    unlabelled: int,
    planes: Planes,
    share: float = 0.2,
    offered: Planes | None = None,
    before: Planes = ((), (), ()),
) -> list[list[int]] | None:
    """Planes to hold out, spread over the axes and the volume, so that training keeps every class and every axis.

    Among the groups of several draws of :func:`~common.geometry.slice_groups.split_slices` the one is taken whose
    planes show most classes and come closest to the share. An axis keeps at least one plane in training.

    Args:
        label: X Y Z, classes, and `unlabelled`.
        unlabelled: label of voxels that nobody labelled.
        planes: annotated planes per axis.
        share: of the offered planes that is wanted; at least one plane is taken, unless the share is 0.
        offered: planes per axis to choose from; all by default.
        before: planes per axis that are held out already, and stay so.

    Returns:
        the planes held out per axis, those before included; None where there are none: too few planes, a share of 0,
        or none that training can spare.
    """
    offered = planes if offered is None else offered
    total = sum(map(len, offered))
    kept = [sorted(of_axis) for of_axis in before]
    if share == 0 or total == 0 or sum(map(len, planes)) < _FEWEST:
        return kept if any(kept) else None
    wanted = max(1, round(share * total))
    voxels = np.argwhere(label != unlabelled)
    classes = label[tuple(voxels.T)]
    best: tuple[tuple[int, int], list[list[int]]] | None = None
    for seed in range(_DRAWS):
        for group in split_slices(offered, max(2, round(total / wanted)), seed):
            chosen = _spared(group, planes, kept)
            on = np.zeros(len(voxels), bool)
            for axis, indices in enumerate(chosen):
                on |= np.isin(voxels[:, axis], indices)
            number = sum(map(len, chosen)) - sum(map(len, kept))
            if number == 0 or set(np.unique(classes)) != set(np.unique(classes[~on])):
                continue
            order = (len(np.unique(classes)) - len(np.unique(classes[on])), abs(number - wanted))
            if best is None or order < best[0]:
                best = order, chosen
        if best is not None and best[0] == (0, 0):
            break
    return best[1] if best else (kept if any(kept) else None)


def beside_training(planes: Planes, held_out: Planes) -> bool:
    """Whether most held-out planes have a plane of training as a neighbour, so that scores on them lean high."""
    pairs = [
        {index - 1, index + 1} & (set(of_axis) - set(out))
        for of_axis, out in zip(planes, held_out, strict=True)
        for index in out
    ]
    return 2 * sum(map(bool, pairs)) > len(pairs)


def trained_on(drawn: np.ndarray, case: np.ndarray, unlabelled: int, held_out: Planes | None) -> np.ndarray:
    """What the network of a round, or of one before it, has been trained on: all that was drawn and is not scored.

    Args:
        drawn: X Y Z, all that was drawn up to that round: classes, and `unlabelled`.
        case: X Y Z, the label of its case, which lacks what lies on slices held out and had been seen before that.
        unlabelled: label of voxels that nobody labelled.
        held_out: planes per axis that the round held out, or None.

    Returns:
        X Y Z, bool.
    """
    scored = (case != unlabelled) & on_planes(case.shape, held_out or ())
    return (drawn != unlabelled) & ~scored


def _spared(group: Planes, planes: Planes, kept: Planes) -> list[list[int]]:
    """A group, and what is held out already, less what would leave an axis without a plane of training."""
    chosen = []
    for new, of_axis, old in zip(group, planes, kept, strict=True):
        most = len(of_axis) - len(old) - 1
        chosen.append(sorted({*old, *list(new)[: max(most, 0)]}))
    return chosen
