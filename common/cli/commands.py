"""The words of ``volseg``, each one or several ``python -m monai.bundle`` lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import fire
from rich.console import Console
from rich.table import Table

from ..checks import InputError, WeightsError, problem
from .annotate.words import Annotate
from .converters import convert
from .demo import demo_rivals, demo_steps, tell_demo
from .device import check_device
from .gate import Gate
from .launch import check_package, keep_memory
from .locate import describe, find_bundle, known_bundles
from .words import check_known, config_files, ids_of, quoted, refuse, run_line, split_names

__all__ = ["Volseg", "main"]

_TRAIN, _EVALUATE = ("train",), ("train", "evaluate")


class Volseg(Gate):
    """Volumetric segmentation bundles: list them, try one, train, evaluate, predict, check and pack.

    Every command prints the "python -m monai.bundle" line it stands for. A flag that is no option of a command
    overrides the config entry of that name: --epochs 3, --dataset_dir FOLDER, --validate::evaluator::amp false.
    """

    annotate = Annotate()

    def list(self) -> int:
        """Show the bundles in reach: name, task, version, and whether weights are there."""
        rows = [describe(folder) for _, folder in sorted(known_bundles().items())]
        if not rows:
            raise InputError(problem("no bundle was found", "bundles lie in bundles/", "work in the repository's root"))
        table = Table(box=None, pad_edge=False)
        for heading in rows[0]:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*row.values())
        _console().print(table)
        return 0

    def train(self, name: str, *rest: str, overlays: str = "", verbose: str = "false", **overrides: str) -> int:
        """Train a bundle; its weights go to models/model.pt.

        Args:
            name: a bundle's name or folder.
            rest: none; all that follows is --option value.
            overlays: configs laid over train.json, in order: small,demo.
            verbose: show whole tracebacks.
            overrides: any entry of the config, as --NAME VALUE.
        """
        return run_line(name, _TRAIN, rest, overlays, verbose, overrides)

    def evaluate(self, name: str, *rest: str, overlays: str = "", verbose: str = "false", **overrides: str) -> int:
        """Score a bundle's weights on the cases held out; tables and pictures go to output_dir.

        Args:
            name: a bundle's name or folder.
            rest: none; all that follows is --option value.
            overlays: configs laid over train.json and evaluate.json, those of the training: small.
            verbose: show whole tracebacks.
            overrides: any entry of the config, as --NAME VALUE.
        """
        return run_line(name, _EVALUATE, rest, overlays, verbose, overrides)

    def predict(
        self,
        name: str,
        *inputs: str,
        out: str = "",
        series: str = "",
        dicom_seg: str = "false",
        again: str = "false",
        workers: str = "",
        scheduler: str = "",
        tls: str = "",
        overlays: str = "",
        verbose: str = "false",
        **overrides: str,
    ) -> int:
        """Segment volumes and DICOM series; results lie on the grid of each input.

        The same line goes on where it was stopped: cases that are done under the same settings are skipped.

        Args:
            name: a bundle's name or folder.
            inputs: files, folders or globs of volumes, a Decathlon folder; DICOM series as folders, zips or files.
            out: where results go (output_dir); eval/ of the bundle by default.
            series: which DICOM series of an input is meant, by its number in the list that is shown, or all.
            dicom_seg: write CASE_seg.dcm for each DICOM series, too.
            again: segment cases that are done, too.
            workers: processes at a time on this machine, one a GPU.
            scheduler: address of a Dask scheduler with workers elsewhere, tls://HOST:PORT.
            tls: folder with ca.pem, cert.pem and key.pem for it.
            overlays: configs laid over inference.json, those of the training: small.
            verbose: show whole tracebacks.
            overrides: any entry of the config, as --NAME VALUE.
        """
        from .predict.command import predict  # here, since it brings torch and MONAI

        options = {
            "series": series,
            "dicom_seg": dicom_seg,
            "again": again,
            "workers": workers,
            "scheduler": scheduler,
            "tls": tls,
            "verbose": verbose,
        }
        return predict(name, inputs, out, overlays, options, overrides)

    def demo(
        self, name: str, *rest: str, out: str = "", rivals: str = "", verbose: str = "false", **overrides: str
    ) -> int:
        """Make a phantom, train a narrow network on it, evaluate and predict: minutes on two cores, no download.

        A bundle whose demo.json names rivals trains and evaluates these, too, and tells all of them in one table.

        Args:
            name: a bundle's name or folder.
            rest: none; all that follows is --option value.
            out: where weights, tables and pictures go; demo/NAME by default, which spares the bundle's own weights.
            rivals: recipes to compare with, as "compare" takes them; those of demo.json by default, "none" for none.
            verbose: show whole tracebacks.
            overrides: any entry of the config, as --NAME VALUE, for those of the runs that have them.
        """
        refuse(rest)
        began = time.perf_counter()
        bundle = find_bundle(name)
        folder = Path(out or Path("demo") / bundle.name)
        print(
            "A demonstration: a narrower network and small phantoms (small.json), "
            "few epochs at a higher learning rate (demo.json).\n"
            "The bundle's default, without these overlays, is the paper's."
        )
        if sys.platform == "linux":
            print(f"Set for these lines, so that a CPU trains faster: {keep_memory()}")
        recipes = demo_rivals(bundle, rivals)
        steps = demo_steps(bundle, folder, recipes)
        ids = [ids_of(config_files(bundle, step.configs)) for step in steps]
        check_known(overrides, {key: value for one in reversed(ids) for key, value in one.items()})
        for step, known in zip(steps, ids, strict=True):
            check_known(step.settings, known)
        for step, known in zip(steps, ids, strict=True):
            chosen = {key: value for key, value in overrides.items() if key in known and key not in step.own}
            print()
            base, overlays = step.configs[: step.base], ",".join(step.configs[step.base :])
            if status := run_line(str(bundle), base, (), overlays, verbose, {**step.places, **chosen, **step.settings}):
                return status
        tell_demo(bundle, folder, recipes, time.perf_counter() - began)
        return 0

    def densify(
        self,
        image: str,
        *slices: str,
        out: str = "",
        unlabelled: str = "",
        disputed: str = "",
        class_names: str = "",
        spacing: str = "",
        key: str = "",
        label_key: str = "",
        downsample: str = "",
        hold_out: str = "",
        finish_epochs: str = "",
        keep_drawn: str = "",
        rivals: str = "",
        bundle: str = "",
        overlays: str = "",
        verbose: str = "",
        **overrides: str,
    ) -> int:
        """From a few drawn slices to a dense label: train on them, label the whole volume, score on slices held out.

        The same line goes on where it was stopped. With --continue true the slices are added to those before.

        Args:
            image: the volume: NIfTI, TIFF, HDF5, or what else a reader is installed for.
            slices: files of drawn slices on the image's voxels.
            out: folder of everything that is written.
            unlabelled: label value of voxels that nobody labelled, or "planes": 0 is a class on drawn slices and
                unlabelled elsewhere. Found out by default.
            disputed: what becomes of voxels that two files label differently: error (default), unlabelled or last.
            class_names: one name a label value, in their order, separated by commas.
            spacing: edges of a voxel along x, y and z, for TIFF and HDF5 files.
            key: data set of the image in an HDF5 file.
            label_key: data set of the slices in HDF5 files.
            downsample: work on means of blocks of so many voxels along each axis; the answer is on the image's grid.
            hold_out: share of the drawn slices that is scored, not trained on; 0.2 by default, 0 for none.
            finish_epochs: epochs in which all slices are trained on in the end; 0 for none.
            keep_drawn: false lets the network label voxels that were drawn, too.
            rivals: recipes to score on the same slices: slice2d,interpolation,random_walker.
            bundle: a bundle's name or folder; unet3d_sparse by default.
            overlays: more overlays of the bundle, in order.
            verbose: show whole tracebacks.
            overrides: any entry of the config, as --NAME VALUE: --epochs 100, --device cpu; and --continue true.
        """
        from .densify.command import densify  # here, since it brings torch and MONAI

        options = {
            "unlabelled": unlabelled,
            "disputed": disputed,
            "class_names": class_names,
            "spacing": spacing,
            "key": key,
            "label_key": label_key,
            "downsample": downsample,
            "hold_out": hold_out,
            "finish_epochs": finish_epochs,
            "keep_drawn": keep_drawn,
            "rivals": rivals,
            "bundle": bundle,
            "overlays": overlays,
            "verbose": verbose,
            "continue": overrides.pop("continue", ""),  # a word of Python's own
        }
        return densify(image, slices, out, options, overrides)

    def compare(
        self,
        name: str,
        *rest: str,
        recipes: str = "",
        folds: str = "",
        runs: str = "",
        overlays: str = "",
        out: str = "",
        jobs: str = "1",
        **overrides: str,
    ) -> int:
        """Train and evaluate several recipes of a bundle on the same folds, and write their table.

        The same line goes on where it was stopped. A recipe keeps what its own overlay sets, whatever is given for all.

        Args:
            name: a bundle's name or folder.
            rest: none; all that follows is --option value.
            recipes: overlays, or "paper" for none, with settings after a colon: paper,unet3d,paper:sectors=4;epochs=9.
                By default paper and the rivals that train.json names.
            folds: parts that the cases are split into; the config's by default.
            runs: runs of each recipe, each of which holds out another fold; one a fold by default.
            overlays: configs laid over train.json for every recipe, in order: small,demo.
            out: where weights, logs, scores and the table go; compare/NAME by default.
            jobs: processes at a time, which share the cores.
            overrides: any entry of the config, as --NAME VALUE, for every recipe.
        """
        from .compare import compare  # here, since it brings torch and MONAI

        refuse(rest)
        bundle = find_bundle(name)
        if "device" in overrides:
            check_device(str(overrides["device"]))
        check_package()
        folder = Path(out or Path("compare") / bundle.name)
        return compare(bundle, folder, recipes, split_names(overlays), folds, runs, jobs, overrides)

    def reproduce(
        self,
        name: str,
        *experiments: str,
        recipes: str = "",
        folds: str = "",
        volumes: str = "",
        overlays: str = "",
        out: str = "",
        jobs: str = "1",
        **overrides: str,
    ) -> int:
        """Run experiments of a bundle's paper, and write its tables with the paper's figures beside.

        Without an experiment those that there are are listed. The same line goes on where it was stopped.

        Args:
            name: a bundle's name or folder.
            experiments: their names, or all.
            recipes: the columns that are run, by their names in the table: 3D with BN,interpolation; all by default.
            folds: number of folds, for data with fewer volumes than the paper's.
            volumes: number of volumes, for an experiment that has a column for each.
            overlays: configs laid over train.json for every run, in order: small,demo.
            out: where weights, logs, scores and tables go; reproduce/NAME by default.
            jobs: processes at a time, which share the cores.
            overrides: any entry of the config, as --NAME VALUE, for every run.
        """
        from .reproduce import list_experiments, reproduce  # here, since it brings torch and MONAI

        bundle = find_bundle(name)
        if not experiments:
            list_experiments(bundle, _console())
            return 0
        if "device" in overrides:
            check_device(str(overrides["device"]))
        check_package()
        folder, options = Path(out or Path("reproduce") / bundle.name), {"folds": folds, "volumes": volumes}
        chosen = [part.strip() for part in recipes.split(",") if part.strip()]
        return reproduce(bundle, folder, experiments, chosen, split_names(overlays), jobs, options, overrides)

    def convert(self, form: str, *files: str, out: str = "", **options: str) -> int:
        """Turn data of another form into a Decathlon folder.

        Args:
            form: hdf5, totalsegmentator, btcv, amos, 3dircadb, ixi, costa or topcow.
            files: files, folders or globs; for all but hdf5 the folder of the unpacked data set.
            out: the folder to make.
            options: what the converter takes, such as --classes binary, --spacing [z,y,x] or --split train.
        """
        convert(form, files, out, options)
        return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for an error that the user can mend, or the run's own."""
    words = [str(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    command = 2 if words[:1] == ["annotate"] else 1  # it has words of its own
    if len(words) > 1 and words[-1] in ("-h", "--help"):
        words = [*words[: min(command, len(words) - 1)], "--", "--help"]  # fire would take it for one more override
    else:
        words = words[:command] + [quoted(word) for word in words[command:]]
    try:
        status = fire.Fire(Volseg(), command=words, name="volseg", serialize=lambda _: None)
    except (InputError, WeightsError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return status if isinstance(status, int) else 0


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 120)
