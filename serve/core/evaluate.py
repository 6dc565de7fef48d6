"""Scores of a packed bundle on the cases that its training held out."""

from __future__ import annotations

import json
import math
import sys

import step


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Evaluate, and see that every case has a row, and the means are numbers between 0 and 1."""
    step.tool(case, "run", "--config_file", str(case.files("train", "evaluate")), **case.values())
    content = json.loads((case.work / "out" / "metrics.json").read_text())
    means = {name: content["summary"]["all classes"][name]["mean"] for name in ("dice", "iou")}
    for name, mean in means.items():
        step.require(mean is not None and math.isfinite(mean) and 0 <= mean <= 1, f"the mean {name} is {mean}")
    cases = {row["case"] for row in content["cases"]}
    pictures = list((case.work / "out").glob("*_evaluation.png"))
    step.require(len(pictures) == len(cases), f"{len(pictures)} pictures of {len(cases)} cases")
    return f"Dice {means['dice']:.3f} over {len(cases)} cases", {"cases": len(cases), **means}


if __name__ == "__main__":
    sys.exit(step.main(run))
