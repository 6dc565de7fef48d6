"""A short training of a packed bundle under ``--tracking mlflow``: the database holds losses and scores.

It is no ``mlflow.py``: beside the other scripts that would be what ``import mlflow`` finds.
"""

from __future__ import annotations

import sqlite3
import sys

import step


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Train, and see that MLflow has finished runs with a loss that is a number, and a score, of every stage."""
    values = case.values(**case.short(), tracking="mlflow")
    step.tool(case, "run", "--config_file", *case.files("train"), **values)
    with sqlite3.connect(case.work / "out" / "mlruns.db") as database:
        runs = database.execute("select run_uuid, name, status from runs").fetchall()
        metrics = database.execute("select key, value, is_nan from metrics").fetchall()
    names = {key for key, _, is_nan in metrics if not is_nan}
    losses = sorted(name for name in names if "loss" in name)
    scores = sorted(name for name in names if "dice" in name or "iou" in name)
    step.require(bool(losses), f"no loss among {sorted(names)}")
    step.require(bool(scores), f"no score among {sorted(names)}")
    unfinished = [name for _, name, status in runs if status != "FINISHED"]
    step.require(not unfinished, f"runs that are not finished: {unfinished}")
    told = f"{len(runs)} runs with {', '.join(losses)} and {', '.join(scores)}"
    return told, {"runs": len(runs), "values": len(metrics)}


if __name__ == "__main__":
    sys.exit(step.main(run))
