"""``volseg reproduce``: the experiments of a bundle's paper, run and told beside the paper's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..checks import InputError, nearest, problem
from .compare import kept_settings, missing_runs, positive, shared_settings
from .experiments import Experiment, read_experiments
from .recipe_table import read_result
from .recipes import Recipe
from .reproduction_table import write_reproduction
from .runs import Runs, execute

__all__ = ["list_experiments", "reproduce"]


def list_experiments(bundle: Path, console: Console) -> None:
    """Show the experiments of a bundle: name, what it is, number of runs, recipes.

    Args:
        bundle: its folder.
        console: where to.

    Raises:
        InputError: see :func:`~common.cli.experiments.read_experiments`.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("experiment", "title", "recipes", "runs"):
        table.add_column(heading, overflow="fold")
    found = read_experiments(bundle)
    for one in found:
        names = [recipe.name for recipe in one.recipes]
        table.add_row(one.name, one["title"], ", ".join(names), str(len(names) * len(list(one.cells()))))
    console.print(table)
    print(f"\nRun one, or all: volseg reproduce {bundle.name} {found[0].name} --out FOLDER")
    print("As it is that is the paper's recipe, hours a run on a GPU; --overlays small,demo makes minutes of it.")


def reproduce(
    bundle: Path,
    out: Path,
    names: Sequence[str],
    recipes: Sequence[str] = (),
    overlays: Sequence[str] = (),
    jobs: str = "1",
    options: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> int:
    """Train and evaluate every recipe in every variant of experiments, and write their tables, whatever there is.

    What is done is not done again, and a training that was stopped goes on. All experiments are checked before the
    first is run.

    Args:
        bundle: its folder.
        out: where each experiment has a folder for weights, logs, scores and the table.
        names: of experiments; ``all`` for every one.
        recipes: names of the recipes that are run; all by default.
        overlays: configs laid over ``train.json`` for every recipe, below those of the experiment and the recipe.
        jobs: processes at a time.
        options: numbers of folds and volumes, where they are not to be the paper's.
        overrides: config entries for every recipe; ``dataset_dir`` among them is a Decathlon folder.

    Returns:
        0, or 1 when a run failed, or 130 when it was interrupted.

    Raises:
        InputError: for what no run could use.
    """
    given = dict(overrides or {})
    data = given.pop("dataset_dir", None)
    numbers = {name: positive(value, name) for name, value in (options or {}).items() if value}
    experiments = read_experiments(bundle, names)
    _check_options(experiments, numbers)
    chosen = _chosen(experiments, recipes)
    works = []
    for one in experiments:
        one = one.sized(numbers, None if data is None else Path(data))
        own, laid = [r for r in one.recipes if r.name in chosen], [*overlays, *one.told.get("overlays", ())]
        plan = {"experiment": one.name, "counts": dict(one.counts)}
        runs = Runs(bundle, out / one.name, data, laid, given, positive(jobs, "jobs") or 1, one.own(bundle), plan)
        works.append((one, runs, own))
    for one, runs, own in works:
        runs.check(own, [one.variant(*cell, phantom=runs.data is None) for cell in one.cells()])
    if not overlays:
        print("These are runs of the paper's recipe: hours each on a GPU. To try them: --overlays small,demo")
    failed = False
    for work in works:
        try:
            failed |= _run(*work)
        except KeyboardInterrupt:
            print("stopped; the same line goes on from here")
            return 130
    return int(failed)


def _check_options(experiments: Sequence[Experiment], numbers: Mapping[str, int | None]) -> None:
    known = {axis["option"] for one in experiments for axis in one.axes if "option" in axis}
    for option in numbers:
        if option not in known:
            names = ", ".join(one.name for one in experiments)
            rule = f"it has {', '.join(sorted(known))}" if known else "its runs are those of the paper"
            raise InputError(problem(f"--{option} is no option of {names}", rule, "leave it out"))


def _chosen(experiments: Sequence[Experiment], recipes: Sequence[str]) -> list[str]:
    """Names of recipes, as the experiments write them."""
    known = list(dict.fromkeys(recipe.name for one in experiments for recipe in one.recipes))
    for name in recipes:
        if name not in known:
            remedy = f"write '{nearest(name, known) or known[0]}'"
            raise InputError(problem(f"there is no recipe '{name}'", f"there are {', '.join(known)}", remedy))
    return list(recipes) or known


def _run(experiment: Experiment, plan: Runs, recipes: Sequence[Recipe]) -> bool:
    """Run what is missing of an experiment, and write its table; whether something failed."""
    phantom = plan.data is None
    # row by row, so that an experiment that is cut short has every recipe on the same cases
    runs = [(cell, recipe, experiment.variant(*cell, phantom)) for cell in experiment.cells() for recipe in recipes]
    tasks = [(recipe, variant) for _, recipe, variant in runs if not plan.done(recipe, variant)]
    print(f"\n{experiment.name}: {len(tasks)} of {len(runs)} runs to do; logs are in {plan.out}", flush=True)
    failures = execute(plan, tasks)
    found = {
        (recipe.name, *cell): read_result(plan.folder(recipe, variant), recipe.name, variant.name)
        for cell, recipe, variant in runs
        if plan.done(recipe, variant)
    }
    data = "the data of its configs" if phantom else plan.data.name
    remarks = [shared_settings(plan), kept_settings(plan, recipes), missing_runs(failures)]
    title = f"{experiment['title']}, `{plan.bundle.name}` on {data}"
    names = [recipe.name for recipe in recipes]
    print(f"\n{write_reproduction(experiment, names, found, plan.out, title, remarks)}")
    for path in sorted(plan.out.glob("table.*")):
        print(f"Written: {path}")
    return bool(failures)
