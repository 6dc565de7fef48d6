"""Rules about files: what a bundle holds, and its metadata."""

from __future__ import annotations

import configparser
import json
import logging.handlers
import re
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from ..checks import nearest
from .bundle import BASES, CONVENTIONAL, REQUIRED_OVERLAYS, Bundle, remark

__all__ = ["documents", "json_files", "listed", "logging_conf", "metadata", "recipes"]

jsonschema, _ = optional_import("jsonschema", descriptor="the metadata rule needs jsonschema: pip install jsonschema")
# what MONAI refuses in a logging file it refuses here; MONAI before 1.6 has no such check
_monai_restrictions, _has_restrictions = optional_import(
    "monai.bundle.workflows", name="_reject_executable_logging_config"
)

SCHEMA = Path(__file__).parent / "schema" / "meta_schema_20240725.json"
"""MONAI's newest metadata schema, https://project-monai.github.io/schema/meta_schema_20240725.json, unchanged."""
# what the schema leaves open, with the type that it states
_WANTED = {
    "name": str,
    "changelog": dict,
    "intended_use": str,
    "data_source": str,
    "eval_metrics": dict,
    "references": list,
}
_DOCUMENTS = ("LICENSE", "docs/README.md", "docs/data_license.txt")


def json_files(bundle: Bundle) -> list[str]:
    """Every config is one JSON object, and no key stands twice in it."""
    return list(bundle.broken)


def recipes(bundle: Bundle) -> list[str]:
    """The configs that every bundle has: the paper's method is the default, everything else is laid over it."""
    broken = " ".join(bundle.broken)
    return [
        remark(
            f"configs/{name}", "", "is not there", "add it: every bundle has " + ", ".join((*BASES, *REQUIRED_OVERLAYS))
        )
        for name in ("metadata.json", *BASES, *REQUIRED_OVERLAYS)
        if name not in bundle.configs and f"configs/{name}" not in broken
    ]


def listed(bundle: Bundle) -> list[str]:
    """``configs`` holds nothing but the configs of the convention and overlays that docs/README.md names."""
    readme = bundle.root / "docs" / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    found = []
    for path in sorted((bundle.root / "configs").iterdir()):
        if path.name in CONVENTIONAL:
            continue
        named = re.search(rf"\b{re.escape(path.stem)}\b", text)
        if path.is_dir() or path.suffix != ".json" or not named:
            remedy = "name it in docs/README.md and say what it is for, or remove it"
            found.append(remark(f"configs/{path.name}", "", "is listed nowhere", remedy))
    return found


def documents(bundle: Bundle) -> list[str]:
    """LICENSE, docs/README.md and docs/data_license.txt are there and not empty."""
    found = []
    for name in _DOCUMENTS:
        path = bundle.root / name
        if not path.is_file():
            found.append(remark(name, "", "is not there", "write it"))
        elif not path.read_text(encoding="utf-8", errors="replace").strip():
            found.append(remark(name, "", "is empty", "write it"))
    return found


def metadata(bundle: Bundle) -> list[str]:
    """configs/metadata.json fits MONAI's schema of 2024-07-25, names its folder, and tells what its version changed."""
    if "metadata.json" not in bundle.configs:
        return []
    content, file = bundle.metadata, "configs/metadata.json"
    found = []
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for error in jsonschema.Draft201909Validator(schema).iter_errors(content):
        place = "::".join(map(str, error.absolute_path))
        found.append(remark(file, place, error.message, "follow common/bundling/schema/" + SCHEMA.name))
    for key, kind in _WANTED.items():
        if not isinstance(content.get(key), kind) or not content[key]:
            remedy = f"add it ({kind.__name__}, not empty)"
            found.append(remark(file, key, "is missing, empty or of another type", remedy))
    if content.get("name", bundle.name) != bundle.name:
        came = f"is '{content['name']}', the folder is '{bundle.name}'"
        found.append(remark(file, "name", came, f"write '{bundle.name}'"))
    version, changelog = content.get("version"), content.get("changelog")
    if isinstance(changelog, dict) and changelog and version not in changelog:
        found.append(remark(file, "changelog", f"has no entry for version '{version}'", "say there what changed"))
    if not str(content.get("schema", "")).endswith(SCHEMA.name):
        found.append(remark(file, "schema", f"is '{content.get('schema')}'", f"name the address of {SCHEMA.name}"))
    return found + _own_name(bundle)


def _own_name(bundle: Bundle) -> list[str]:
    """A config that looks for its bundle looks for this one."""
    found = []
    for base in bundle.bases:
        root = bundle.configs[base].get("bundle_root")
        if isinstance(root, dict) and root.get("name", bundle.name) != bundle.name:
            came = f"looks for '{root['name']}', the folder is '{bundle.name}'"
            found.append(remark(f"configs/{base}", "bundle_root::name", came, f"write '{bundle.name}'"))
    return found


def logging_conf(bundle: Bundle) -> list[str]:
    """configs/logging.conf is one that Python's logging reads and MONAI does not refuse."""
    file, path = "configs/logging.conf", bundle.root / "configs" / "logging.conf"
    if not path.is_file() or not path.read_text(encoding="utf-8").strip():
        return [remark(file, "", "is not there or empty", "copy it from another bundle")]
    conf = configparser.ConfigParser(interpolation=None)
    try:
        conf.read_string(path.read_text(encoding="utf-8"))
    except configparser.Error as error:
        return [
            remark(file, "", f"can not be read ({error.message})", "write it as logging.config.fileConfig wants it")
        ]
    found = []
    for group in ("loggers", "handlers", "formatters"):
        if not conf.has_option(group, "keys"):
            found.append(remark(file, f"[{group}]", "has no keys", f"write [{group}] with keys=..."))
            continue
        names = [name.strip() for name in conf.get(group, "keys").split(",") if name.strip()]
        for name in names:
            section = f"{group[:-1]}_{name}"
            if not conf.has_section(section):
                sections = nearest(section, conf.sections())
                remedy = f"write it, or rename [{sections}]" if sections else "write it"
                found.append(remark(file, f"[{section}]", "is named by keys and is not there", remedy))
    found += [
        remark(file, f"[{name}]", f"class '{kind}' is unknown", "use one of logging or logging.handlers")
        for name, kind in _handler_classes(conf)
        if not _is_handler(kind)
    ]
    if not found and _has_restrictions:
        try:
            _monai_restrictions(str(path))
        except ValueError as error:
            found.append(
                remark(file, "", str(error), "use classes of logging and logging.handlers, literals and sys.stdout")
            )
    return found


def _handler_classes(conf: configparser.ConfigParser) -> list[tuple[str, str]]:
    return [(name, conf.get(name, "class", fallback="")) for name in conf.sections() if name.startswith("handler_")]


def _is_handler(name: str) -> bool:
    holder: Any = logging
    for part in name.removeprefix("logging.").split("."):
        holder = getattr(holder, part, None)
    return isinstance(holder, type) and issubclass(holder, logging.Handler)
