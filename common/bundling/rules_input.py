"""Rules about what servers and reports read of the metadata: the images that are expected, the codes of the classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from .bundle import Bundle, remark

__all__ = ["SCHEMA", "dicom_segments", "expected_input"]

jsonschema, _ = optional_import("jsonschema", descriptor="the rules need jsonschema: pip install jsonschema")

SCHEMA = Path(__file__).parent / "schema" / "input_and_segments.json"
_FILE = "configs/metadata.json"


def expected_input(bundle: Bundle) -> list[str]:
    """metadata.json says what images the method was made for (``expected_input``), with bounds in order."""
    found = _form(bundle, "expected_input")
    if found or "metadata.json" not in bundle.configs:
        return found
    for place, (low, high) in _bounds(bundle.metadata["expected_input"], "expected_input"):
        if low is not None and high is not None and low > high:
            found.append(remark(_FILE, place, f"is from {low:g} to {high:g}", "put the lower bound first"))
    return found


def dicom_segments(bundle: Bundle) -> list[str]:
    """metadata.json has a code for every class but the background (``dicom_segments``), as class_names has them."""
    found = _form(bundle, "dicom_segments")
    segments = bundle.metadata.get("dicom_segments")
    stated = [bundle.configs[base].get("class_names") for base in reversed(bundle.bases)]
    names = next((names for names in stated if isinstance(names, list)), None)
    if found or segments is None or names is None:
        return found
    wanted = {str(number): str(name) for number, name in enumerate(names) if str(name).strip().lower() != "background"}
    for number in [number for number in wanted if number not in segments]:
        came = f"has no class {number}, which class_names calls '{wanted[number]}'"
        found.append(
            remark(_FILE, "dicom_segments", came, "add its codes, or write null for a bundle without DICOM SEG")
        )
    for number, segment in segments.items():
        place = f"dicom_segments::{number}"
        if number not in wanted:
            came = f"('{segment['label']}') is no class of class_names, or its background"
            found.append(remark(_FILE, place, came, "remove it, or correct its number"))
        elif segment["label"].lower() != wanted[number].lower():
            came = f"is '{segment['label']}', class_names has '{wanted[number]}' there"
            found.append(remark(_FILE, f"{place}::label", came, "give both the same name"))
    return found


def _form(bundle: Bundle, entry: str) -> list[str]:
    """Where one entry of the metadata breaks the schema."""
    if "metadata.json" not in bundle.configs:
        return []  # said by another rule
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    schema = {**schema, "properties": {entry: schema["properties"][entry]}, "required": [entry]}
    return [
        remark(
            _FILE,
            "::".join(map(str, error.absolute_path)),
            error.message,
            f"follow common/bundling/schema/{SCHEMA.name}",
        )
        for error in jsonschema.Draft201909Validator(schema).iter_errors(bundle.metadata)
    ]


def _bounds(part: Any, place: str) -> Iterator[tuple[str, list[Any]]]:
    """Every pair of bounds below a part of the metadata, with its place."""
    for key, value in part.items():
        if isinstance(value, dict):
            yield from _bounds(value, f"{place}::{key}")
        elif isinstance(value, list) and key != "modality":
            yield f"{place}::{key}", value
