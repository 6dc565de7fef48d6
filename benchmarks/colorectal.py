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
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.bundling.ids import check_overrides, config_ids  # noqa: E402
from common.checks import InputError, problem  # noqa: E402
from common.cli.excerpt import user_error  # noqa: E402
from common.cli.launch import bundle_command, shown  # noqa: E402
from common.cli.locate import config_file  # noqa: E402
from common.data.decathlon import read_dataset  # noqa: E402
from common.files import atomic_path, check_writable, read_json, write_json  # noqa: E402
from common.metrics.comparison import Comparison  # noqa: E402
from common.visualize.palette import class_colour  # noqa: E402

BUNDLE = ROOT / "bundles" / "ru_net_colorectal"
ENSEMBLE, NO_CONTOUR, UNET = "ensemble", "RF88, no contour loss", "3D U-Net"
METRICS = {
    "dice": ("Dice", ".3f"),
    "roi_recall": ("RoI recall", ".3f"),
    "roi_share": ("RoIs / volume", ".3f"),  # a recall of 1 means nothing where the regions are everything
    "assd_mm": ("ASSD, mm", ".2f"),
    "hd95_mm": ("HD95, mm", ".1f"),
}


@dataclass(frozen=True)
class Recipe:
    """A way to train: overlays after those that were asked for, and settings that are its own."""

    name: str
    overlays: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    whole_budget: bool = False  # one stage gets the epochs of both

    @property
    def folder(self) -> str:
        """Its name as that of a folder."""
        return re.sub(r"\W+", "_", self.name.lower())


RECIPES = [
    Recipe(ENSEMBLE),
    Recipe(NO_CONTOUR, settings={"lambda_contour": 0.0, "variants": ["RF88"]}),
    Recipe(UNET, overlays=("whole_volume",), whole_budget=True),
]


class Runs:
    """Runs the folds of the recipes, as processes that end with this one."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.data, self.out, self.folds = Path(options.data).resolve(), Path(options.out).resolve(), options.folds
        self.overlays = [name for name in options.overlays.split(",") if name]
        self.given = dict(pair.split("=", 1) for pair in options.set)
        self.environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        if options.jobs > 1:
            self.environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.jobs)))
        self._lock, self._running, self._ended = threading.Lock(), set(), False

    def check_plan(self) -> None:
        """Refuse what no run could use, and an output folder whose results were made under other settings."""
        read_dataset(self.data)
        check_overrides(config_ids(self._planned()), self.given)
        plan = {"data": str(self.data), "folds": self.folds, "overlays": self.overlays, "set": self.given}
        path = self.out / "plan.json"
        if path.is_file() and (before := read_json(path)) != plan:
            raise InputError(
                problem(
                    f"'{self.out}' holds runs of {before}, not {plan}",
                    "the rows of one table share their data, folds and settings",
                    "give the same again, or another folder",
                )
            )
        check_writable(self.out)
        write_json(path, plan)

    def folder(self, recipe: Recipe, fold: int) -> Path:
        """Where a fold's weights, logs and results are."""
        return self.out / recipe.folder / f"fold{fold}"

    def done(self, recipe: Recipe, fold: int) -> bool:
        """Whether a fold was trained to the end and all its cases were scored."""
        folder = self.folder(recipe, fold)
        files = [folder / name for name in ("trained.json", "metrics.csv", "metrics.json", "stages.json")]
        return all(file.is_file() for file in files) and not read_json(folder / "metrics.json")["failed"]

    def command(self, recipe: Recipe, fold: int, *base: str) -> list[str]:
        """The process that trains or evaluates a fold."""
        configs = [config_file(BUNDLE, name) for name in (*base, *self.overlays, *recipe.overlays)]
        own = {name for overlay in recipe.overlays for name in read_json(config_file(BUNDLE, overlay))}
        settings = {name: value for name, value in self.given.items() if name not in own} | recipe.settings
        if recipe.whole_budget:
            planned = {**self._planned(), **self.given}
            settings["epochs"] = int(planned["locator_epochs"]) + int(planned["epochs"])
        folder = self.folder(recipe, fold)
        places = {
            "bundle_root": BUNDLE,
            "dataset_dir": self.data,
            "output_dir": folder,
            "model_path": folder / "model.pt",
        }
        places |= {"fold": fold, "folds": self.folds}
        return bundle_command(configs, {**settings, **places, **({"resume": True} if base == ("train",) else {})})

    def _planned(self) -> dict[str, object]:
        configs = [config_file(BUNDLE, name) for name in ("train", *self.overlays)]
        return ConfigParser.load_config_files([str(path) for path in configs])

    def run(self, recipe: Recipe, fold: int) -> None:
        """Train and evaluate a fold, unless that is done."""
        folder = self.folder(recipe, fold)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "trained.json").is_file():
            resumed, begun = (folder / "train.log").is_file(), time.perf_counter()
            self._process(self.command(recipe, fold, "train"), folder / "train.log")
            write_json(folder / "trained.json", {"seconds": time.perf_counter() - begun, "resumed": resumed})
        if not self.done(recipe, fold):
            self._process(self.command(recipe, fold, "train", "evaluate"), folder / "evaluate.log")

    def _process(self, command: list[str], log: Path) -> None:
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(f"$ {shown(command)}\n")
            stream.flush()
            with self._lock:
                if self._ended:
                    raise RuntimeError("stopped")
                process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=stream, stderr=stream)
                self._running.add(process)
            status = process.wait()
            self._running.discard(process)
        if status:
            text = log.read_text(encoding="utf-8", errors="replace").rsplit("\n$ ", 1)[-1].rstrip()
            told = ": ".join(user_error(text) or [text.splitlines()[-1]])
            raise RuntimeError(f"ended with {status}: {told[:400]} ({log})")

    def end(self) -> None:
        """Stop what is running; a training that was stopped can go on."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()


def collect(runs: Runs, recipes: list[Recipe]) -> Comparison:
    """The scores of all folds that are done, and of the ensemble's members."""
    found = Comparison(METRICS)
    done = [(recipe, fold) for recipe in recipes for fold in range(runs.folds) if runs.done(recipe, fold)]
    for recipe, fold in done:
        folder = runs.folder(recipe, fold)
        # of a network that sees the whole volume both would be 1
        told = [] if recipe.name == UNET else read_json(folder / "stages.json")["cases"]
        regions = {case["case"]: {name: case.get(name) for name in ("roi_recall", "roi_share")} for case in told}
        with open(folder / "metrics.csv", newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                scores = {name: float(row[name]) for name in METRICS if row.get(name)}
                scores |= {name: value for name, value in regions.get(row["case"], {}).items() if value is not None}
                found.add(recipe.name, row["case"], scores, fold=fold, status=row["status"])
    for recipe, fold in done:
        for row in read_json(runs.folder(recipe, fold) / "stages.json")["scores"] if recipe.name == ENSEMBLE else ():
            if row["network"] != ENSEMBLE:
                scores = {name: row[name] for name in ("assd_mm", "hd95_mm") if row[name] is not None}
                scores["dice"] = math.nan if row["dice_percent"] is None else row["dice_percent"] / 100
                found.add(member(row["network"]), row["case"], scores, fold=fold, status=row["status"])
    return found


def member(name: str) -> str:
    """The row of a single member of the ensemble."""
    return f"{name} alone"


def report(runs: Runs, recipes: list[Recipe], failures: dict[str, str]) -> str:
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
    draw(found, runs.out / "dice.png")
    return text


def minutes(runs: Runs, recipe: Recipe) -> str:
    """How long the folds took to train, of those that were trained in one go."""
    files = [runs.folder(recipe, fold) / "trained.json" for fold in range(runs.folds)]
    told = [read_json(file) for file in files if file.is_file()]
    whole = [one["seconds"] / 60 for one in told if not one["resumed"]]
    return ", ".join(f"{one:.1f}" for one in whole)


def draw(found: Comparison, path: Path) -> None:
    """Dice by case: a column a method, a line a case, a bar at the mean."""
    summary, cases = found.summary(), sorted({row["case"] for row in found.rows})
    methods = list(summary)
    figure = Figure(figsize=(1.8 + 1.5 * len(methods), 4.8), layout="constrained")
    panel = figure.subplots()
    scores = {method: found.scores(method, "dice") for method in methods}
    for number, case in enumerate(cases):
        line = [scores[method].get(case, math.nan) for method in methods]
        panel.plot(range(len(methods)), line, color=class_colour(number), lw=0.8, marker="o", ms=5, label=case)
    for at, method in enumerate(methods):
        mean = summary[method]["dice"]["mean"]
        panel.plot([at - 0.25, at + 0.25], [math.nan if mean is None else mean] * 2, color="#222222", lw=2.5)
    panel.set_xticks(range(len(methods)), methods)
    panel.set_ylim(-0.02, 1.02)
    panel.set_ylabel("Dice; bars: mean")
    panel.grid(axis="y", color="#DDDDDD", lw=0.6)
    if len(cases) <= 14:
        panel.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main() -> int:
    """Run what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a Decathlon folder (dataset.json)")
    parser.add_argument("--out", required=True, help="where weights, logs and results go")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--recipes", nargs="+", choices=[recipe.name for recipe in RECIPES], help="all by default")
    parser.add_argument("--overlays", default="", help="configs laid over train.json, in order: small,demo")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="config entries, for every recipe")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    options = parser.parse_args()
    if wrong := [pair for pair in options.set if "=" not in pair]:
        parser.error(f"--set {wrong[0]}: write key=value")
    runs = Runs(options)
    recipes = [recipe for recipe in RECIPES if recipe.name in (options.recipes or [one.name for one in RECIPES])]
    runs.check_plan()
    # fold by fold, so that a run that is cut short has every recipe on the same cases
    tasks = [(recipe, fold) for fold in range(runs.folds) for recipe in recipes if not runs.done(recipe, fold)]
    print(f"{len(tasks)} of {runs.folds * len(recipes)} runs to do; logs are in {runs.out}", flush=True)
    failures: dict[str, str] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(options.jobs) as pool, tqdm(total=len(tasks), unit="run", smoothing=0) as bar:
        waiting = {pool.submit(runs.run, *task): f"{task[0].name}, fold {task[1]}" for task in tasks}
        try:
            for future in as_completed(waiting):
                name, error = waiting[future], future.exception()
                if error is not None:
                    failures[name] = str(error)
                bar.write(f"{name}: {error or 'done'}")
                bar.update()
        except KeyboardInterrupt:
            runs.end()
            pool.shutdown(cancel_futures=True)
            raise
    print(report(runs, recipes, failures))
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"InputError: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same line goes on from here")
