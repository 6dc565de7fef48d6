"""What ``volseg demo`` runs, and what it tells in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import read_json
from .locate import config_file
from .recipes import Recipe, parse_recipes

__all__ = ["DemoStep", "demo_rivals", "demo_steps", "tell_demo"]

_SMALL, _DEMO = "small", "demo"


@dataclass(frozen=True)
class DemoStep:
    """One line of a demonstration.

    Args:
        configs: names of its configs, those of a command first.
        base: how many of them are the command's.
        places: where its results and weights lie; overrides come over them.
        settings: of a recipe; they come over overrides.
        own: names of overrides that are not for it.
    """

    configs: tuple[str, ...]
    base: int
    places: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    own: frozenset[str] = frozenset()


def demo_rivals(bundle: Path, names: str = "") -> list[Recipe]:
    """The recipes that a demonstration compares the bundle's own with.

    Args:
        bundle: its folder.
        names: see :func:`~common.cli.recipes.parse_recipes`; empty for those of ``demo.json``, ``none`` for none.
    """
    if names.strip().lower() == "none":
        return []
    return parse_recipes(names or read_json(config_file(bundle, _DEMO)).get("rivals", []))


def demo_steps(bundle: Path, folder: Path, rivals: Sequence[Recipe] = ()) -> list[DemoStep]:
    """The lines of a demonstration: train, evaluate, predict; then train and evaluate each of the rivals.

    Args:
        bundle: its folder.
        folder: where everything goes; a rival has a folder of its own in it.
        rivals: recipes.
    """
    places = {"output_dir": str(folder), "model_path": str(folder / "model.pt")}
    steps = [
        DemoStep(("train", _SMALL, _DEMO), 1, places),
        DemoStep(("train", "evaluate", _SMALL), 2, places),
        DemoStep(("inference", _SMALL), 1, {**places, "output_dir": str(folder / "predictions")}),
    ]
    for recipe in rivals:
        place = folder / recipe.folder
        own = {"output_dir", "model_path"}.union(*(read_json(config_file(bundle, name)) for name in recipe.overlays))
        more = {
            "places": {"output_dir": str(place), "model_path": str(place / "model.pt")},
            "settings": recipe.settings,
            "own": frozenset(own),
        }
        steps.append(DemoStep(("train", _SMALL, _DEMO, *recipe.overlays), 1, **more))
        steps.append(DemoStep(("train", "evaluate", _SMALL, *recipe.overlays), 2, **more))
    return steps


def tell_demo(bundle: Path, folder: Path, rivals: Sequence[Recipe], seconds: float) -> None:
    """Print what was reached, and where tables and pictures lie.

    Args:
        bundle: its folder.
        folder: of the demonstration.
        rivals: the recipes that were trained, too.
        seconds: what it took.
    """
    summary = read_json(folder / "metrics.json")["summary"]
    metric = _headline(bundle, summary)
    scores = {group: values[metric.lower()]["mean"] for group, values in summary.items()}
    print(f"\nDone in {seconds / 60:.1f} minutes.")
    print(f"{metric} on what was held out: " + ", ".join(f"{group} {_score(value)}" for group, value in scores.items()))
    stages = folder / "stages.md"
    if stages.is_file():
        print(f"\n{stages.read_text(encoding='utf-8')}")
    if rivals:
        from .recipe_table import read_result, write_table  # here, since it brings what the other demos need not

        runs = [(bundle.name, folder), *((recipe.name, folder / recipe.folder) for recipe in rivals)]
        results = [read_result(place, name, "demo") for name, place in runs]
        print(f"\n{write_table(results, folder, f'Demonstration of `{bundle.name}` and its rivals')}")
        print(f"Table: {folder / 'table.csv'}")
    print(f"Table: {folder / 'metrics.csv'}\nPredictions: {folder / 'predictions'}")
    for picture in sorted(folder.rglob("*.png")):
        print(f"Picture: {picture}")


def _headline(bundle: Path, summary: Mapping[str, Mapping[str, Any]]) -> str:
    """The first of the metrics that the bundle's metadata name (``eval_metrics``) and that were computed."""
    named = read_json(bundle / "configs" / "metadata.json").get("eval_metrics", {})
    computed = {metric for values in summary.values() for metric in values}
    return next((name for name in named if name.lower() in computed), "Dice")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
