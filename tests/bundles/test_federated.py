"""One client of a federation, for every bundle: the weights that are handed out are trained and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sandbox import BUNDLES, SHORT, Sandbox

CONFIGS = Path(__file__).resolve().parents[2] / "bundles"

CLIENT = """
import json, sys
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.exchange_object import ExchangeObject
root, files, values = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
algo = MonaiAlgo(root, send_weight_diff=False, config_train_filename=files,
                 train_kwargs={**values, "output_dir": "trained"}, eval_kwargs={"output_dir": "scored"})
algo.initialize()
handed = {name: value.clone() for name, value in algo.evaluator.network.state_dict().items()}
algo.train(ExchangeObject(weights={name: value.clone() for name, value in handed.items()}))
found = algo.get_weights()
assert set(found.weights) == set(handed)
assert found.statistics["num_executed_iterations"] > 0
moved = {name.split(".")[0] for name, value in found.weights.items() if not torch.equal(value, handed[name])}
on_disk = torch.load(root + "/models/model.pt", weights_only=True)
assert any(not torch.equal(value, on_disk[name]) for name, value in handed.items())
metrics = algo.evaluate(ExchangeObject(weights=handed)).metrics
held = algo.evaluator.network.state_dict()
assert all(torch.equal(held[name], value) for name, value in handed.items())
print(json.dumps({"moved": sorted(moved), "metrics": metrics}))
"""


@pytest.mark.parametrize("name", BUNDLES)
def test_an_evaluation_leaves_its_weights_to_those_who_hand_them_out(name):
    config = json.loads((CONFIGS / name / "configs" / "evaluate.json").read_text())
    loaders = [handler["_target_"] for handler in config["validate::handlers"] if "path" in handler]
    assert loaders and all("CheckpointLoader" in target for target in loaders)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLES)
def test_a_round_trains_every_child_and_scores_what_is_handed_out(name, tmp_path):
    sandbox = Sandbox.make(tmp_path / "checkout")
    (sandbox.folder / "client.py").write_text(CLIENT)
    root = f"bundles/{name}"
    rounds = (sandbox.folder / root / "configs" / "federated.json").is_file()
    files = ["configs/train.json", *(["configs/federated.json"] if rounds else [])]
    values = {key: value for key, value in SHORT[name]["training"].items() if key != "epochs"}
    done = sandbox.run(f"python client.py {root} '{json.dumps(files)}' '{json.dumps(values)}'")
    told = json.loads(done.stdout.splitlines()[-1])
    network = json.loads((CONFIGS / name / "configs" / "train.json").read_text())["network_def"]["_target_"]
    stages = {"CascadedUNet3D": ["stage1", "stage2"], "LiverTumourRAUNet": ["liver", "localiser", "tumour"]}
    assert told["moved"] == stages.get(network.rpartition(".")[2], told["moved"]) and told["moved"]
    scores = json.loads((sandbox.folder / "scored" / "metrics.json").read_text())["summary"]["all classes"]
    assert {"val_mean_dice", "val_mean_iou"} <= set(told["metrics"])
    assert told["metrics"]["val_mean_dice"] == pytest.approx(scores["dice"]["mean"])
