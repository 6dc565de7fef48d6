"""The ids that MONAI's workflows ask of a bundle for training, evaluation and prediction."""

from __future__ import annotations

import sys

import step
from monai.bundle import ConfigWorkflow

_WORKFLOWS = {"training": ("train", ["train"]), "evaluation": ("train", ["train", "evaluate"])}
_WORKFLOWS["prediction"] = ("infer", ["inference"])


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Build each workflow as MONAI does, and see that no property is absent or refers elsewhere."""
    counted = 0
    for name, (kind, configs) in _WORKFLOWS.items():
        workflow = ConfigWorkflow(
            config_file=case.files(*configs),
            meta_file=str(case.bundle / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type=kind,
            **case.values(bundle_root=str(case.bundle)),
        )
        workflow.initialize()
        wrong = workflow.check_properties()
        step.require(not wrong, f"{name}: {wrong}")
        required = [key for key, value in workflow.properties.items() if value["required"]]
        for key in required:  # a property is there when it can be built, not when its id is
            step.require(getattr(workflow, key) is not None, f"{name}: {key} is None")
        counted += len(workflow.properties)
    return f"{counted} properties of {len(_WORKFLOWS)} workflows", {"properties": counted}


if __name__ == "__main__":
    sys.exit(step.main(run))
