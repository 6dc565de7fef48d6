"""Two processes train one composite: gradients are exchanged, one writes, all end with the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_members import DecodeWhereBright, Ensemble, cases

from common.engines.distributed import average_gradients, gathered, of_first_rank, share_weights
from common.losses import RoIAwareLoss

TOY = Path(__file__).resolve().parents[1] / "two_stage"
REPOSITORY = TOY.parents[1]

# Run by torchrun: trains, then each rank leaves what it holds and how many writes it made.
WORKER = """
import os, sys, torch
import common.engines.resume, common.engines.stage_weights
from monai.bundle import ConfigWorkflow

bundle, data = sys.argv[1:3]
writes = []
for module, name in ((common.engines.stage_weights, "save_weights"), (common.engines.resume, "save_tensors")):
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


def run_in_two_processes(folder: Path, code: str, *arguments: Path | str) -> list[dict]:
    """Run `code` by torchrun; what each rank left in ``rankN.pt`` of the folder."""
    worker = folder / "worker.py"
    worker.write_text(code)
    paths = os.pathsep.join(str(path) for path in (REPOSITORY, TOY, Path(__file__).parent))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(worker)]
    done = subprocess.run(
        [*command, str(folder), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes(bundle, data):
    first, second = run_in_two_processes(bundle, WORKER, data)
    assert first["network"].keys() == second["network"].keys()
    assert all(torch.equal(first["network"][key], second["network"][key]) for key in first["network"])
    # each rank saw other noise in another order, so equal gradients mean that they were exchanged
    assert all(torch.equal(a, b) for a, b in zip(first["gradient"], second["gradient"], strict=True))
    assert first["writes"] > 0 and second["writes"] == 0
    kept = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(kept[key], first["network"][key]) for key in kept)
    assert set(json.loads((bundle / "models" / "model.json").read_text())["stages"]) == {"finder", "refiner"}


# Which case each rank gets in each iteration: those of odd numbers hold a region, so that in the first iteration no
# decoder runs, in the next two that of one rank, in the last both.
ORDER = {0: [0, 1, 2, 3], 1: [0, 2, 1, 3]}

# Weights, data and scores differ between the ranks; rank 1 alone would see no reason to end.
MEMBERS_WORKER = """
import sys, torch
from pathlib import Path
from toy_members import Ensemble, Scores, Validate, cases, trainer
from test_distributed import ORDER

torch.distributed.init_process_group("gloo")
rank, folder = torch.distributed.get_rank(), Path(sys.argv[1])
network, data = Ensemble(seed=rank), cases(seed=rank)
data = [torch.utils.data.default_collate([data[number]]) for number in ORDER[rank]]
scores = Scores([0.5, 0.4, 0.3, 0.2, 0.1] if rank == 0 else [0.1, 0.2, 0.3, 0.4, 0.5])
stage = trainer(network, folder, data, max_epochs=5, patience=2, evaluator=scores, train_handlers=[Validate(scores)])
stage.run()
torch.save({"network": network.state_dict(), "epoch": stage.state.epoch}, folder / f"rank{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_members_in_two_processes_average_their_gradients(tmp_path):
    first, second = run_in_two_processes(tmp_path, MEMBERS_WORKER)
    assert first["epoch"] == second["epoch"] == 3
    assert all(torch.equal(first["network"][key], second["network"][key]) for key in first["network"])

    expected, loss_function, inferer = Ensemble(seed=0), RoIAwareLoss(), DecodeWhereBright()
    data = [cases(seed=rank) for rank in (0, 1)]
    optimizer = torch.optim.Adam(expected.parameters(), 0.05, weight_decay=0.1, amsgrad=True)
    for iteration in range(4):  # the best epoch is the first
        optimizer.zero_grad()
        for rank in (0, 1):
            case = torch.utils.data.default_collate([data[rank][ORDER[rank][iteration]]])
            for member in expected.members.values():
                prediction = inferer(case["image"], member, case["label"])
                (loss_function(prediction, case["label"]) / 2).backward()
        optimizer.step()
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(first["network"][key], value, rtol=1e-4, atol=1e-6)


AVERAGE_WORKER = """
import sys, torch
from pathlib import Path
from common.engines.distributed import average_gradients, share_weights

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
names = ("both", "one", "none", "wide", "frozen")
parameters = {name: torch.nn.Parameter(torch.zeros(2, 3)) for name in names}
parameters["wide"] = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
parameters["frozen"].requires_grad_(False)
parameters["both"].grad = torch.arange(6.0).reshape(2, 3) * (1 if rank == 0 else 3)
parameters["wide"].grad = torch.full((4,), 1.0 + rank, dtype=torch.float64)
if rank == 1:
    parameters["one"].grad = torch.ones(2, 3)
average_gradients(parameters.values())

network = torch.nn.BatchNorm1d(2)
with torch.no_grad():
    for number, tensor in enumerate((*network.parameters(), *network.buffers())):
        tensor.fill_(10 * number + rank)
assert share_weights(network) is network
content = {"gradients": {name: p.grad for name, p in parameters.items()}, "state": network.state_dict()}
torch.save(content, Path(sys.argv[1]) / f"rank{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_average_and_share(tmp_path):
    for content in run_in_two_processes(tmp_path, AVERAGE_WORKER):
        gradients = content["gradients"]
        assert torch.equal(gradients["both"], torch.arange(6.0).reshape(2, 3) * 2)
        assert torch.equal(gradients["one"], torch.full((2, 3), 0.5))
        assert gradients["none"] is None and gradients["frozen"] is None
        assert torch.equal(gradients["wide"], torch.full((4,), 1.5, dtype=torch.float64))
        assert [tensor.unique().tolist() for tensor in content["state"].values()] == [[0], [10], [20], [30], [40]]


def test_one_process_is_left_alone():
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = gradient = torch.ones(3)
    average_gradients([parameter, torch.nn.Parameter(torch.zeros(2))])
    assert parameter.grad is gradient and torch.equal(gradient, torch.ones(3))
    network = torch.nn.Linear(1, 1)
    assert share_weights(network) is network
    assert of_first_rank("value") == "value" and gathered(3) == [3]
