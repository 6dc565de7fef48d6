"""``volseg compare``: several recipes of a bundle on the same folds, data and budget, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import InputError, problem
from ..data.arguments import parse_optional_integer
from .folds import FoldRuns
from .recipe_table import read_result, write_table
from .recipes import PAPER, Recipe, parse_recipes
from .runs import Runs, Variant, execute

__all__ = ["compare", "kept_settings", "missing_runs", "positive", "shared_settings"]


def compare(
    bundle: Path,
    out: Path,
    recipes: str = "",
    overlays: Sequence[str] = (),
    folds: str | None = None,
    runs: str | None = None,
    jobs: str = "1",
    overrides: Mapping[str, Any] | None = None,
) -> int:
    """Train and evaluate every recipe, and write the table, whatever of it there is.

    What is done is not done again, and a training that was stopped goes on.

    Args:
        bundle: its folder.
        out: where weights, logs, scores and the table go.
        recipes: see :func:`~common.cli.recipes.parse_recipes`; by default ``paper`` and the ``rivals`` of the configs.
        overlays: configs laid over ``train.json`` for every recipe.
        folds: number of folds that the cases are split into; the configs' by default, of cases or else of slices.
        runs: number of runs of each recipe; one a fold by default.
        jobs: processes at a time.
        overrides: config entries for every recipe; ``dataset_dir`` among them is a Decathlon folder.

    Returns:
        0, or 1 when a run failed or the comparison was interrupted.

    Raises:
        InputError: for what no run could use.
    """
    given = dict(overrides or {})
    data = given.pop("dataset_dir", None)
    if "rivals" in given:
        raise InputError(problem("--rivals was given", "recipes to compare have an option", "write --recipes A,B"))
    plan = FoldRuns(bundle, out, data, positive(folds, "folds"), overlays, given, positive(jobs, "jobs") or 1)
    variants = [plan.variant(number) for number in range(positive(runs, "runs") or plan.folds)]
    chosen = parse_recipes(recipes or [PAPER, *plan.planned.get("rivals", ())])
    plan.check(chosen, variants)
    # run by run, so that a comparison that is cut short has every recipe on the same cases
    pairs = [(recipe, variant) for variant in variants for recipe in chosen]
    tasks = [pair for pair in pairs if not plan.done(*pair)]
    print(f"{len(tasks)} of {len(pairs)} runs to do; logs are in {plan.out}", flush=True)
    try:
        failures = execute(plan, tasks)
    except KeyboardInterrupt:
        print("stopped; the same line goes on from here")
        return 130
    print(f"\n{_report(plan, chosen, variants, failures)}")
    for path in sorted(plan.out.glob("table.*")):
        print(f"Written: {path}")
    return 1 if failures else 0


def _report(plan: FoldRuns, recipes: Sequence[Recipe], variants: Sequence[Variant], failures: Mapping[str, str]) -> str:
    done = [(recipe, variant) for recipe in recipes for variant in variants if plan.done(recipe, variant)]
    results = [read_result(plan.folder(*one), one[0].name, one[1].folder) for one in done]
    folds = f"{plan.folds} folds" + (" of the annotated slices" if plan.of_slices else "")
    remarks = [
        f"{shared_settings(plan)} A run holds out one of {folds}; runs share their training cases, so the deviation is "
        "not that of independent trainings.",
        kept_settings(plan, recipes),
        missing_runs(failures),
    ]
    data = plan.data.name if plan.data else "the data of its configs"
    return write_table(results, plan.out, f"Recipes of `{plan.bundle.name}` on {data}", remarks)


def shared_settings(plan: Runs) -> str:
    """What all recipes of a table were given."""
    settings = " ".join(f"{name}={value}" for name, value in plan.given.items()) or "none"
    return f"Overlays of all recipes: {', '.join(plan.overlays) or 'none'}. Settings: {settings}."


def kept_settings(plan: Runs, recipes: Sequence[Recipe]) -> str:
    """What was given for all recipes and some of them have as their own; empty where there is none."""
    kept = [
        f"- {recipe.name}: " + ", ".join(f"{name}={value}" for name, value in own.items())
        for recipe in recipes
        if (own := plan.kept(recipe))
    ]
    return "Not as given for all, but as the recipe itself has it:\n\n" + "\n".join(kept) if kept else ""


def missing_runs(failures: Mapping[str, str]) -> str:
    """Why runs are missing, by their names; empty where none is."""
    return "Missing:\n\n" + "\n".join(f"- {name}: {error}" for name, error in failures.items()) if failures else ""


def positive(value: str | None, name: str) -> int | None:
    """A whole number from 1 on, or None where none was given.

    Raises:
        InputError: for anything else.
    """
    number = parse_optional_integer(value, name)
    if number is not None and number < 1:
        raise InputError(problem(f"{name} is {number}", "it must be 1 or more", f"pass for example --{name} 1"))
    return number
