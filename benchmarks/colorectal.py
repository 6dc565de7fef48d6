"""Cross-validation of 3D RU-Net on a data set: the ensemble, its members, no contour loss, and a 3D U-Net.

    python benchmarks/colorectal.py --data FOLDER --out FOLDER
    python benchmarks/colorectal.py --data FOLDER --out FOLDER --overlays small --set epochs=20 patience=5 --jobs 2

Every fold of every recipe is trained and evaluated by `python -m monai.bundle run`, each in a process of its own, with
its log beside its results. The recipes are trained on the same folds with the same settings:

- ensemble: the bundle as it is; its members are scored in the same evaluation ("alone").
- RF88, no contour loss: one member trained with lambda_contour 0, beside the same member of the ensemble (members share
  no weights, so that each is as if trained alone).
- 3D U-Net: the overlay whole_volume. One network with the encoder of RF88 and a decoder of the whole volume, Dice loss,
  for as many epochs as the ensemble's locator and joint training together.

What is done is not done again: a fold that was evaluated is read, a training that was killed goes on. At the end, or
for what is there when some runs failed, `table.md`, `cases.csv` and `dice.png` are in the output folder. All figures
are those that the evaluations have written (metrics.csv, stages.json).
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.checks import InputError  # noqa: E402
from common.cli.folds import FoldRuns  # noqa: E402
from common.cli.launch import check_package  # noqa: E402
from common.cli.recipes import Recipe  # noqa: E402
from common.cli.runs import execute  # noqa: E402
from common.files import atomic_path, read_json  # noqa: E402
from common.metrics.comparison import Comparison  # noqa: E402
from common.visualize.comparison import comparison_figure  # noqa: E402

BUNDLE = ROOT / "bundles" / "ru_net_colorectal"
ENSEMBLE, NO_CONTOUR, UNET = "ensemble", "RF88, no contour loss", "3D U-Net"
METRICS = {
    "dice": ("Dice", ".3f"),
    "roi_recall": ("RoI recall", ".3f"),
    "roi_share": ("RoIs / volume", ".3f"),  # a recall of 1 means nothing where the regions are everything
    "assd_mm": ("ASSD, mm", ".2f"),
    "hd95_mm": ("HD95, mm", ".1f"),
}


NAMES = [ENSEMBLE, NO_CONTOUR, UNET]


def recipes_of(runs: FoldRuns, names: list[str]) -> list[Recipe]:
    """The recipes by these names."""
    # one stage gets the epochs of both
    epochs = int(runs.planned["locator_epochs"]) + int(runs.planned["epochs"])
    found = [
        Recipe(ENSEMBLE),
        Recipe(NO_CONTOUR, settings={"lambda_contour": 0.0, "variants": ["RF88"]}),
        Recipe(UNET, overlays=("whole_volume",), settings={"epochs": epochs}),
    ]
    return [recipe for recipe in found if recipe.name in names]


def collect(runs: FoldRuns, recipes: list[Recipe]) -> Comparison:
    """The scores of all folds that are done, and of the ensemble's members."""
    found = Comparison(METRICS)
    pairs = [(recipe, fold) for recipe in recipes for fold in range(runs.folds)]
    done = [(recipe, fold) for recipe, fold in pairs if runs.done(recipe, runs.variant(fold))]
    for recipe, fold in done:
        folder = runs.folder(recipe, runs.variant(fold))
        # of a network that sees the whole volume both would be 1
        told = [] if recipe.name == UNET else read_json(folder / "stages.json")["cases"]
        regions = {case["case"]: {name: case.get(name) for name in ("roi_recall", "roi_share")} for case in told}
        with open(folder / "metrics.csv", newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                scores = {name: float(row[name]) for name in METRICS if row.get(name)}
                scores |= {name: value for name, value in regions.get(row["case"], {}).items() if value is not None}
                found.add(recipe.name, row["case"], scores, fold=fold, status=row["status"])
    for recipe, fold in done:
        for row in (
            read_json(runs.folder(recipe, runs.variant(fold)) / "stages.json")["scores"]
            if recipe.name == ENSEMBLE
            else ()
        ):
            if row["network"] != ENSEMBLE:
                scores = {name: row[name] for name in ("assd_mm", "hd95_mm") if row[name] is not None}
                scores["dice"] = math.nan if row["dice_percent"] is None else row["dice_percent"] / 100
                found.add(member(row["network"]), row["case"], scores, fold=fold, status=row["status"])
    return found


def member(name: str) -> str:
    """The row of a single member of the ensemble."""
    return f"{name} alone"


def report(runs: FoldRuns, recipes: list[Recipe], failures: dict[str, str]) -> str:
    """Write table, CSV file and picture, and return the table."""
    found = collect(runs, recipes)
    if not found.rows:
        return "nothing was scored"
    methods = found.methods
    pairs = [(ENSEMBLE, other) for other in methods if other != ENSEMBLE and ENSEMBLE in methods]
    pairs += [(member("RF88"), other) for other in (NO_CONTOUR, UNET) if {member("RF88"), other} <= set(methods)]
    counts = {method: [row["status"] for row in found.rows if row["method"] == method] for method in methods}
    odd = [
        f"- {method}: " + ", ".join(f"{kind} in {counts[method].count(kind)}" for kind in kinds)
        for method in methods
        if (kinds := sorted(set(counts[method]) - {"scored"}))
    ]
    times = [f"- {recipe.name}: {text}" for recipe in recipes if (text := minutes(runs, recipe))]
    settings = " ".join(f"{name}={value}" for name, value in runs.given.items()) or "none"
    parts = [
        f"# {runs.folds}-fold cross-validation of `ru_net_colorectal` on {runs.data.name}",
        f"Overlays: {', '.join(runs.overlays) or 'none'}. Settings: {settings}.",
        "Mean ± standard deviation over cases, each held out once, and the 95 % bootstrap interval of the mean. Cases "
        "share their training sets, so the interval is too narrow. Where nothing is found Dice is 0 and there is no "
        "distance.",
        found.means(),
        "\n".join(odd),
        "Differences case by case, first less second:" if pairs else "",
        found.differences(pairs) if pairs else "",
        found.cases(),
        "Minutes of training, fold by fold, of those that were trained in one go:\n\n" + "\n".join(times)
        if times
        else "",
        "Missing:\n\n" + "\n".join(f"- {name}: {error}" for name, error in failures.items()) if failures else "",
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    with atomic_path(runs.out / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    found.write_csv(runs.out / "cases.csv")
    scores = {method: found.scores(method, "dice") for method in methods}
    comparison_figure({"Dice": scores}, runs.out / "dice.png")
    return text


def minutes(runs: FoldRuns, recipe: Recipe) -> str:
    """How long the folds took to train, of those that were trained in one go."""
    files = [runs.folder(recipe, runs.variant(fold)) / "trained.json" for fold in range(runs.folds)]
    told = [read_json(file) for file in files if file.is_file()]
    whole = [one["seconds"] / 60 for one in told if not one["resumed"]]
    return ", ".join(f"{one:.1f}" for one in whole)


def main() -> int:
    """Run what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a Decathlon folder (dataset.json)")
    parser.add_argument("--out", required=True, help="where weights, logs and results go")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--recipes", nargs="+", choices=NAMES, help="all by default")
    parser.add_argument("--overlays", default="", help="configs laid over train.json, in order: small,demo")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="config entries, for every recipe")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    options = parser.parse_args()
    if wrong := [pair for pair in options.set if "=" not in pair]:
        parser.error(f"--set {wrong[0]}: write key=value")
    overlays = [name for name in options.overlays.split(",") if name]
    given = dict(pair.split("=", 1) for pair in options.set)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    check_package()
    runs = FoldRuns(BUNDLE, options.out, options.data, options.folds, overlays, given, options.jobs)
    recipes = recipes_of(runs, options.recipes or NAMES)
    variants = [runs.variant(fold) for fold in range(runs.folds)]
    runs.check(recipes, variants)
    # fold by fold, so that a run that is cut short has every recipe on the same cases
    tasks = [(recipe, one) for one in variants for recipe in recipes if not runs.done(recipe, one)]
    print(f"{len(tasks)} of {runs.folds * len(recipes)} runs to do; logs are in {runs.out}", flush=True)
    failures = execute(runs, tasks)
    print(report(runs, recipes, failures))
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"InputError: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same line goes on from here")
