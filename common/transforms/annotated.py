"""Which annotated slices of a label are seen in training, and which are held out for scoring."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.transforms import MapTransform
from monai.transforms.transform import Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..checks import InputError, problem
from ..data.arguments import parse_integer, parse_integers, parse_optional_integer, parse_planes
from ..geometry.labels import labelled_slices
from ..geometry.slice_groups import beside_share, crossed_share, plane_mask, split_slices, spread_slices
from .source import source_of

__all__ = ["AnnotatedSlices", "AnnotatedSlicesd", "labelled_share"]

_PARTS = ("train", "held_out", "all")

# In a dense label, and in a block or slab of one, at least 6/7 of the voxels on held-out planes are crossed by planes
# of training, or the most of the held-out planes' neighbours are planes of training. Single slices stay far below.
_CROSSED, _BESIDE = 0.75, 0.5


def labelled_share(label: torch.Tensor, ignore_index: int = 3) -> float:
    """Share of the voxels that are labelled, between 0 and 1.

    Args:
        label: labels of any shape.
        ignore_index: label of unlabelled voxels.

    >>> labelled_share(torch.tensor([0, 3, 3, 1]))
    0.5
    """
    labelled = convert_to_tensor(label, track_meta=False) != ignore_index
    return float(torch.count_nonzero(labelled)) / max(labelled.numel(), 1)


class AnnotatedSlices(Transform):
    """Show one part of a label's annotated slices and hide everything else.

    cicek2016unet3d section 4: annotated slices of three orthogonal directions, (7, 5, 21) of them in planes (yz, xz,
    xy), that is across the array axes 0, 1 and 2; three-fold cross-validation over the slices, scored on held-out
    slices only.

    A set A of planes is taken: those that were annotated, as :func:`labelled_slices` finds them (in a dense label all),
    or, with `slices`, so many of them per axis, evenly chosen. Then

    ============  ==========================================  ====================================================
    \\             part "train" shows                          part "held_out" shows
    ============  ==========================================  ====================================================
    `folds` n     A without the planes of group `fold`        planes of group `fold`, less what "train" shows
    None, slices  A                                           every labelled voxel that is not on A
    `held_out`    the label without these planes              every labelled voxel on these planes
    None of them  the label as it is                          the label as it is (other volumes are held out then)
    ============  ==========================================  ====================================================

    and part "all" shows A (with `slices`) or the label as it is. Where whole volumes are held out, which `volume_folds`
    says, "held_out" shows the label as it is: nothing of these volumes was trained on.

    Args:
        part: "train", "held_out" or "all".
        slices: planes per axis, 0 allowed, such as (7, 5, 21); None takes every annotated plane. Text such as
            "[7, 5, 21]" or "null" from a command line is understood too.
        fold: which group of planes is held out, from 0.
        folds: number of groups, at least 2, or None; words as for `slices`.
        ignore_index: label of unlabelled voxels; what is hidden becomes this.
        seed: decides which plane goes to which group (see :func:`split_slices`); the same in training and validation.
        volume_folds: number of folds that the volumes were dealt to, or None where each volume is in both parts.
        held_out: the planes to hold out, indices from 0 for each array axis, such as ((), (), (12, 40)), of every
            volume; or None. They are hidden whole, also where annotated planes of other axes cross them, so that a
            dense label or a block can be held out by planes as well. Not together with `slices` or `folds`.

    Returns:
        the label, shape (1, D, H, W) and type as given.

    Raises:
        InputError: for arguments out of range or that exclude each other, more slices than annotated planes, fewer
            annotated planes than folds, folds of planes that lie side by side or fill a block, held-out planes beyond
            the volume, or a part in which nothing is labelled.
    """

    def __init__(
        self,
        part: str = "train",
        slices: Sequence[int] | None = None,
        fold: int = 0,
        folds: int | None = None,
        ignore_index: int = 3,
        seed: int = 0,
        volume_folds: int | None = None,
        held_out: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.part, self.ignore_index, self.seed = part, int(ignore_index), int(seed)
        self.slices = parse_integers(slices, "slices")
        self.folds = parse_optional_integer(folds, "folds")
        self.fold = parse_integer(fold, "fold")
        self.planes = parse_planes(held_out, "held_out")
        self.other_volumes = parse_optional_integer(volume_folds, "volume_folds") is not None
        if part not in _PARTS:
            raise InputError(
                problem(f"part {part!r} was given", f"it must be one of {', '.join(_PARTS)}", "take one of these")
            )
        if self.slices is not None and not (
            isinstance(self.slices, tuple) and len(self.slices) == 3 and min(self.slices) >= 0 and any(self.slices)
        ):
            raise InputError(
                problem(
                    f"slices {self.slices} was given",
                    "it must be three numbers of planes, not all 0",
                    "give them for the planes yz, xz and xy, such as (7, 5, 21)",
                )
            )
        if self.folds is not None and not (self.folds >= 2 and 0 <= self.fold < self.folds):
            raise InputError(
                problem(
                    f"fold {self.fold} of folds {self.folds} was given",
                    "folds must be at least 2 and fold lie from 0 to folds - 1",
                    "change one of them, or give folds None to hold no slices out",
                )
            )
        if self.planes is not None and (self.slices is not None or self.folds is not None):
            other = "slices" if self.slices is not None else "folds"
            raise InputError(
                problem(
                    f"held_out and {other} {getattr(self, other)} were given",
                    "planes are held out by their numbers (held_out), or by slices and folds, not both",
                    "give slices None and folds None beside held_out (slice_folds, where a bundle calls it so)",
                )
            )

    @property
    def holds_out(self) -> bool:
        """Whether the parts "train" and "held_out" of one volume differ."""
        return not self.other_volumes and not (self.slices is None and self.folds is None and self.planes is None)

    def __call__(self, label: torch.Tensor) -> torch.Tensor:
        """Hide in `label`, shape (1, D, H, W), what does not belong to the part."""
        values = convert_to_tensor(label, track_meta=False)
        if values.ndim != 4 or len(values) != 1:
            raise InputError(
                problem(
                    f"{source_of(label)} has shape {tuple(values.shape)}",
                    "a label must be (1, D, H, W)",
                    "load it with one channel in front",
                )
            )
        labelled = values != self.ignore_index
        if not labelled.any():
            raise InputError(
                problem(
                    f"nothing is labelled in {source_of(label)}",
                    f"some voxels must differ from {self.ignore_index} (ignore_index)",
                    "label some of it, or take the case out of the list",
                )
            )
        shown = labelled & self._shown(values, source_of(label))
        if not shown.any():
            raise InputError(
                problem(
                    f"nothing is labelled in the part '{self.part}' of {source_of(label)}",
                    "some labelled voxels must belong to it",
                    "change slices, fold and folds, or held_out",
                )
            )
        hidden = torch.where(shown, values, torch.full_like(values, self.ignore_index))
        return convert_to_dst_type(hidden, dst=label)[0]

    def _shown(self, values: torch.Tensor, source: str) -> torch.Tensor:
        """Mask, shape (1, D, H, W) or smaller where it broadcasts, of what the part shows."""
        everything = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=values.device)
        if self.part == "held_out" and self.other_volumes:
            return everything
        if self.planes is not None and self.part != "all":
            self._check_within(values, source)
            hidden = plane_mask(self.planes, values)
            return hidden if self.part == "held_out" else ~hidden
        if self.slices is None and (self.folds is None or self.part == "all"):
            return everything
        planes = self._planes(values, source)
        if self.folds is None or self.part == "all":
            kept = plane_mask(planes, values)
            return ~kept if self.part == "held_out" else kept
        groups = split_slices(planes, self.folds, self.seed)
        if crossed_share(groups, values, self.ignore_index) > _CROSSED or beside_share(groups) > _BESIDE:
            raise InputError(
                problem(
                    f"the annotated slices of {source} lie side by side, as in a dense label, and folds {self.folds} "
                    "was given",
                    "a held-out slice must stand apart from the slices that are trained on",
                    "give slices, such as (7, 5, 21), to keep only so many, or folds None to use all of the label",
                )
            )
        seen = [sorted(set(of_axis) - set(out)) for of_axis, out in zip(planes, groups[self.fold], strict=True)]
        kept = plane_mask(seen, values)
        return kept if self.part == "train" else plane_mask(groups[self.fold], values) & ~kept

    def _check_within(self, values: torch.Tensor, source: str) -> None:
        beyond = [max(planes, default=-1) >= size for planes, size in zip(self.planes, values.shape[1:], strict=True)]
        if any(beyond):
            raise InputError(
                problem(
                    f"held_out {[list(planes) for planes in self.planes]} was given and {source} has "
                    f"{tuple(values.shape[1:])} planes",
                    "planes are counted from 0 along each array axis",
                    "give planes of this volume",
                )
            )

    def _planes(self, values: torch.Tensor, source: str) -> list[list[int]]:
        """The planes of A per axis."""
        planes = [labelled_slices(values, self.ignore_index, axis) for axis in range(3)]
        if self.slices is not None:
            counts = tuple(len(of_axis) for of_axis in planes)
            if any(wanted > count for wanted, count in zip(self.slices, counts, strict=True)):
                raise InputError(
                    problem(
                        f"slices {self.slices} was given and {source} has {counts} annotated slices per axis",
                        "there can not be more slices than were annotated",
                        "give smaller numbers",
                    )
                )
            planes = [
                [of_axis[index] for index in spread_slices(wanted, len(of_axis))]
                for wanted, of_axis in zip(self.slices, planes, strict=True)
            ]
        total = sum(len(of_axis) for of_axis in planes)
        if self.folds is not None and total < self.folds:
            raise InputError(
                problem(
                    f"{source} has {total} annotated slices and folds {self.folds} was given",
                    "each fold needs at least one slice",
                    "give fewer folds or annotate more slices",
                )
            )
        return planes


class AnnotatedSlicesd(MapTransform):
    """Dictionary form of :class:`AnnotatedSlices`, which can also hand over what training sees of a scored label.

    cicek2016unet3d section 4.

    Args:
        keys: labels, shape (1, D, H, W) each.
        part, slices, fold, folds, ignore_index, seed, volume_folds, held_out: see :class:`AnnotatedSlices`.
        seeds_key: in part "held_out", put what part "train" shows of the (one) label under this key: the seeds of
            methods that learn nothing and fill a volume up from its own slices. None: no such key. Other parts have
            none.
        allow_missing_keys: pass over keys that a case does not have.

    Raises:
        InputError: see :class:`AnnotatedSlices`; a `seeds_key` where nothing of the volumes themselves is held out, so
            that the seeds would be the answer, or that is one of the keys, or for several keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        part: str = "train",
        slices: Sequence[int] | None = None,
        fold: int = 0,
        folds: int | None = None,
        ignore_index: int = 3,
        seed: int = 0,
        volume_folds: int | None = None,
        held_out: Sequence[Sequence[int]] | None = None,
        seeds_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        common = (slices, fold, folds, ignore_index, seed, volume_folds, held_out)
        self.annotated = AnnotatedSlices(part, *common)
        self.seeds_key = seeds_key if part == "held_out" and str(seeds_key) not in ("None", "null", "") else None
        self.seeds = AnnotatedSlices("train", *common)
        if self.seeds_key is None:
            return
        if len(self.keys) != 1 or self.seeds_key in self.keys:
            raise InputError(
                problem(
                    f"seeds_key {self.seeds_key!r} was given for the keys {', '.join(map(str, self.keys))}",
                    "it must be a key of its own beside one label",
                    "name another key, or one label",
                )
            )
        if not self.annotated.holds_out:
            raise InputError(
                problem(
                    f"seeds_key {self.seeds_key!r} was given and no slices of a volume are held out in it",
                    "seeds are what is left of a label when some of its slices are held out to score; here they would "
                    "be all that is scored",
                    "give held_out, slices or slice_folds, and folds None; methods that start from slices can not "
                    "segment volumes without any",
                )
            )

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, Any]:
        """Hide in every key's label what does not belong to the part."""
        shown = dict(data)
        for key in self.key_iterator(shown):
            label = convert_to_tensor(shown[key], track_meta=get_track_meta())
            if self.seeds_key is not None:
                shown[self.seeds_key] = self.seeds(label)
            shown[key] = self.annotated(label)
        return shown
