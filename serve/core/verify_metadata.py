"""A bundle's metadata against the schema that it names, as MONAI checks it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import step

# the schema that the gate of this collection keeps: MONAI takes a file that is there and asks no network
_KEPT = Path(__file__).resolve().parents[2] / "common" / "bundling" / "schema"


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Check, then check a copy without a field that the schema requires, which must not pass."""
    metadata = case.config("metadata")
    name = Path(metadata["schema"]).name
    schema = case.work / name
    schema.write_bytes((_KEPT / name).read_bytes())
    step.tool(case, "verify_metadata", meta_file=case.files("metadata")[0], filepath=str(schema))
    required = json.loads(schema.read_text())["required"]
    spoiled = case.work / "spoiled.json"
    spoiled.write_text(json.dumps({key: value for key, value in metadata.items() if key != "network_data_format"}))
    try:
        step.tool(case, "verify_metadata", meta_file=str(spoiled), filepath=str(schema))
    except step.StepError:
        return f"fits {name}", {"required fields": len(required)}
    raise step.StepError("metadata without network_data_format pass as well: nothing was checked")


if __name__ == "__main__":
    sys.exit(step.main(run))
