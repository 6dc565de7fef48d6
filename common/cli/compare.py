"""``volseg compare``: several recipes of a bundle on the same folds, data and budget, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import InputError, problem
from ..data.arguments import parse_optional_integer
from .recipe_table import read_result, write_table
from .recipes import PAPER, Recipe, parse_recipes
from .runs import Runs, execute

__all__ = ["compare"]


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
        folds: number of folds; the configs' by default.
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
    plan = Runs(bundle, out, data, _number(folds, "folds"), overlays, given, _number(jobs, "jobs") or 1)
    number = _number(runs, "runs") or plan.folds
    chosen = parse_recipes(recipes or [PAPER, *plan.planned.get("rivals", ())])
    plan.check(chosen)
    # run by run, so that a comparison that is cut short has every recipe on the same cases
    pairs = [(recipe, count) for count in range(number) for recipe in chosen]
    tasks = [pair for pair in pairs if not plan.done(*pair)]
    print(f"{len(tasks)} of {len(pairs)} runs to do; logs are in {plan.out}", flush=True)
    try:
        failures = execute(plan, tasks)
    except KeyboardInterrupt:
        print("stopped; the same line goes on from here")
        return 130
    print(f"\n{_report(plan, chosen, number, failures)}")
    for path in sorted(plan.out.glob("table.*")):
        print(f"Written: {path}")
    return 1 if failures else 0


def _report(plan: Runs, recipes: Sequence[Recipe], number: int, failures: Mapping[str, str]) -> str:
    done = [(recipe, count) for recipe in recipes for count in range(number) if plan.done(recipe, count)]
    results = [read_result(plan.folder(*one), one[0].name, plan.folder(*one).name) for one in done]
    settings = " ".join(f"{name}={value}" for name, value in plan.given.items()) or "none"
    data = plan.data.name if plan.data else "the data of its configs"
    kept = [
        f"- {recipe.name}: " + ", ".join(f"{name}={value}" for name, value in own.items())
        for recipe in recipes
        if (own := plan.kept(recipe))
    ]
    remarks = [
        f"Overlays of all recipes: {', '.join(plan.overlays) or 'none'}. Settings: {settings}. A run holds out one of "
        f"{plan.folds} folds; runs share their training cases, so the deviation is not that of independent trainings.",
        "Not as given for all, but as the recipe itself has it:\n\n" + "\n".join(kept) if kept else "",
        "Missing:\n\n" + "\n".join(f"- {name}: {error}" for name, error in failures.items()) if failures else "",
    ]
    return write_table(results, plan.out, f"Recipes of `{plan.bundle.name}` on {data}", remarks)


def _number(value: str | None, name: str) -> int | None:
    """A whole number from 1 on, or None where none was given."""
    number = parse_optional_integer(value, name)
    if number is not None and number < 1:
        raise InputError(problem(f"{name} is {number}", "it must be 1 or more", f"pass for example --{name} 1"))
    return number
