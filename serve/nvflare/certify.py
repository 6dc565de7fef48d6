"""Two rounds of two sites of NVFlare's simulator with a packed bundle, one short epoch each."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import traceback
from pathlib import Path

import torch
from make_job import METRIC, allow, make_job

_CLIENTS, _ROUNDS = 2, 2
# a round as short as can be, by the names that the bundles give their numbers
_SHORT = {
    "iterations_per_epoch": 2,
    "pretrain_epochs": 1,
    "locator_epochs": 1,
    "localiser_epochs": 1,
    "liver_epochs": 1,
    "slices_per_volume": 2,
    "slabs_per_volume": 1,
    "tumour_patches_per_volume": 1,
    "val_interval": 1,
}
_REPORTED = re.compile(rf"(site-\d+) reported key metric {METRIC}: (\S+)")


class StepError(RuntimeError):
    """Something is not as it must be; the text says what."""


def simulate(bundle: Path, work: Path, data: Path | None) -> str:
    """Run the job in the simulator, from a folder where nothing of the bundle lies, and give back what was said."""
    known = json.loads((bundle / "configs" / "train.json").read_text(encoding="utf-8"))
    training = {key: value for key, value in _SHORT.items() if known.get(key)}
    values = {} if data is None else {"dataset_dir": str(data)}
    make_job(bundle, work / "job", _CLIENTS, _ROUNDS, 1, {**values, "device": "cpu"}, training)
    allow(work / "workspace")
    line = [str(Path(sys.executable).parent / "nvflare"), "simulator", str(work / "job")]
    line += ["-w", str(work / "workspace"), "-n", str(_CLIENTS), "-t", "1"]
    print("$", *line, flush=True)
    variables = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(
        line, cwd=work, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout, flush=True)
    if done.returncode:
        raise StepError(f"the simulator ended with status {done.returncode}")
    return done.stdout


def check(bundle: Path, work: Path, output: str) -> tuple[str, dict[str, float]]:
    """See that every site scored every round, that all of it was added up, and that the weights are the network's."""
    scores = [(site, float(value)) for site, value in _REPORTED.findall(output)]
    if len(scores) != _CLIENTS * _ROUNDS or any(value != value for _, value in scores):
        raise StepError(f"{len(scores)} scores of {_CLIENTS} sites and {_ROUNDS} rounds: {scores}")
    rounds = output.count(f"aggregating {_CLIENTS} update(s)")
    if rounds != _ROUNDS:
        raise StepError(f"{rounds} of {_ROUNDS} rounds added up what {_CLIENTS} sites had learnt")
    [file] = (work / "workspace").rglob("FL_global_model.pt")
    weights = torch.load(file, weights_only=True, map_location="cpu")["model"]
    from monai.bundle import ConfigParser  # once the bundle's code is in reach

    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "train.json"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
    children = {name.split(".")[0] for name in weights}
    figures = {f"{METRIC} of {site}": value for site, value in scores[-_CLIENTS:]}
    told = f"{_CLIENTS} sites, {_ROUNDS} rounds, global weights of {len(weights)} tensors"
    return told, {"tensors": len(weights), "children": len(children), **figures}


def main() -> int:
    """The protocol of a certification (common/certify/steps.py)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    bundle, work = given.bundle.resolve(), given.work.resolve()
    sys.path.insert(0, str(bundle))
    try:
        told, figures = check(bundle, work, simulate(bundle, work, given.data and given.data.resolve()))
        passed = True
    except Exception as error:  # whatever it is, the certification goes on
        traceback.print_exc()
        told, figures, passed = f"{type(error).__name__}: {error}".splitlines()[0], {}, False
    print("RESULT " + json.dumps({"passed": passed, "told": told, "figures": figures}), flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
