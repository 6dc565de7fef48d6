"""``volseg annotate``: which slices to draw next, and whether that advice is any better than chance."""

from __future__ import annotations

from ...checks import InputError, nearest, problem
from ..words import refuse, split_names

__all__ = ["Annotate"]

_BUNDLE = "unet3d_sparse"


class Annotate:
    """Which slices to draw next, and how much better than random ones they are on your own data."""

    def next(self, folder: str, *rest: str, count: str = "5", axes: str = "xyz", **unknown: str) -> int:
        """Rank the slices of a volume that was filled up by what drawing them is expected to settle.

        Args:
            folder: of "volseg densify" (its --out); next.json and next.png are written there.
            rest: none; all that follows is --option value.
            count: number of slices.
            axes: letters of the axes across which they may lie: xyz, or z alone.
            unknown: and refused: there is no other.
        """
        from .next_slices import annotate_next  # here and below, since it brings torch and MONAI

        refuse(rest)
        if unknown:
            name = next(iter(unknown))
            near = nearest(name, ("count", "axes")) or "count"
            raise InputError(problem(f"--{name} was given", "there are --count and --axes", f"write --{near}"))
        return annotate_next(folder, count, axes)

    def simulate(
        self,
        image: str,
        label: str,
        *rest: str,
        out: str = "",
        start: str = "1,1,1",
        rounds: str = "4",
        add: str = "3",
        strategies: str = "gain,random,even",
        repeats: str = "3",
        axes: str = "xyz",
        segmenter: str = "unet",
        unlabelled: str = "",
        background: str = "",
        spacing: str = "",
        key: str = "",
        label_key: str = "",
        seed: str = "0",
        bundle: str = _BUNDLE,
        overlays: str = "",
        **overrides: str,
    ) -> int:
        """Pretend to annotate a labelled volume slice by slice, and plot IoU against slices for several strategies.

        Each round adds slices and segments anew; the same line goes on where it was stopped. With the network a round
        takes minutes; random_walker and interpolation learn nothing and take seconds.

        Args:
            image: the volume: NIfTI, TIFF, HDF5.
            label: its label, dense, or of eight or more annotated slices, of which a quarter is for scoring alone.
            rest: none; all that follows is --option value.
            out: where rounds, table and plot go; annotate/IMAGE by default.
            start: slices across x, y and z that all strategies start from.
            rounds: how often slices are added.
            add: slices added at a time.
            strategies: gain (what settles most), random (where foreground is predicted), even (spacing).
            repeats: runs of the whole from other slices, which tell chance.
            axes: letters of the axes across which slices are added.
            segmenter: unet, random_walker or interpolation.
            unlabelled: value of unlabelled voxels, planes, or none of a dense label; found out by default.
            background: value of the class that is no foreground, or none; 0 by default.
            spacing: edges of a voxel along x, y and z, for TIFF and HDF5.
            key: data set of an HDF5 image.
            label_key: data set of an HDF5 label.
            seed: of all draws.
            bundle: the bundle that unet trains.
            overlays: more of its overlays.
            overrides: any entry of its config, as --NAME VALUE: --epochs 20.
        """
        from ...data.arguments import parse_integer, parse_integers
        from ..device import check_device
        from ..launch import check_package
        from ..locate import find_bundle
        from .next_slices import parse_axes
        from .simulate import NETWORK, simulate
        from .simulation import Plan

        refuse(rest)
        first = parse_integers(start, "start")
        numbers = {"rounds": rounds, "add": add, "repeats": repeats, "seed": seed}
        plan = Plan(
            start=first if isinstance(first, tuple) else (first or 0,),
            strategies=tuple(split_names(strategies)),
            axes=parse_axes(axes),
            **{name: parse_integer(value, name) for name, value in numbers.items()},
        )
        if "device" in overrides:
            check_device(str(overrides["device"]))
        if segmenter == NETWORK:
            check_package()
        options = {"unlabelled": unlabelled, "background": background, "spacing": spacing}
        options |= {"key": key or None, "label_key": label_key or None}
        folder = find_bundle(bundle)
        return simulate(image, label, out or None, plan, segmenter, folder, options, split_names(overlays), overrides)
