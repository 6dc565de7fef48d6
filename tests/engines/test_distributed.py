"""Two processes train one composite: gradients are exchanged, one writes, all end with the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOY = Path(__file__).resolve().parents[1] / "two_stage"
REPOSITORY = TOY.parents[1]

# Run by torchrun: trains, then each rank leaves what it holds and how many writes it made.
WORKER = """
import os, sys, torch
import common.engines.resume, common.engines.stage_trainer
from monai.bundle import ConfigWorkflow

bundle, data = sys.argv[1:3]
writes = []
for module, name in ((common.engines.stage_trainer, "save_weights"), (common.engines.resume, "save_tensors")):
    def counting(*args, original=getattr(module, name), name=name):
        writes.append(name)
        return original(*args)
    setattr(module, name, counting)
flow = ConfigWorkflow(
    config_file=[f"{bundle}/configs/train.json", f"{bundle}/configs/multi_gpu_train.json"], logging_file=False,
    meta_file=None, workflow_type=None, bundle_root=bundle, dataset_dir=data, epochs=2,
)
flow.initialize()
flow.run()
rank = torch.distributed.get_rank()
network = flow.parser.get_parsed_content("network")
gradient = [parameter.grad for parameter in network.refiner.parameters()]
torch.save({"network": network.state_dict(), "gradient": gradient, "writes": len(writes)}, f"{bundle}/rank{rank}.pt")
flow.finalize()
"""


@pytest.mark.slow
def test_two_processes(bundle, data):
    worker = bundle / "worker.py"
    worker.write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{TOY}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node=2",
            str(worker),
            str(bundle),
            str(data),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(bundle / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["network"].keys() == second["network"].keys()
    assert all(torch.equal(first["network"][key], second["network"][key]) for key in first["network"])
    # each rank saw other noise in another order, so equal gradients mean that they were exchanged
    assert all(torch.equal(a, b) for a, b in zip(first["gradient"], second["gradient"], strict=True))
    assert first["writes"] > 0 and second["writes"] == 0
    kept = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(kept[key], first["network"][key]) for key in kept)
    assert set(json.loads((bundle / "models" / "model.json").read_text())["stages"]) == {"finder", "refiner"}
