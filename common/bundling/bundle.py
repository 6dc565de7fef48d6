"""A bundle's folder as the gate reads it: its configs, and which of them are laid over which."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..checks import InputError, problem
from .ids import advice, config_ids, lay, normal_id

__all__ = ["BASES", "CONVENTIONAL", "REQUIRED_OVERLAYS", "Bundle", "open_bundle", "remark"]

BASES = ("train.json", "inference.json")
"""Configs that stand alone; every other one is laid over them."""
REQUIRED_OVERLAYS = ("evaluate.json", "multi_gpu_train.json", "modern.json", "small.json", "demo.json")
"""Overlays that every bundle has: the modes of MONAI's zoo, the second recipe, and what tests and demos shrink by."""
CONVENTIONAL = ("metadata.json", "logging.conf", *BASES, *REQUIRED_OVERLAYS, "multi_gpu_evaluate.json")


def remark(file: str, name: str, came: str, remedy: str) -> str:
    """The text of a finding: file, id, what is wrong, what to do."""
    place = f"{file}: {name}" if name else file
    return " ".join(f"{place}: {came}. To mend it, {remedy}.".split())


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What the rules look at.

    Args:
        root: the bundle's folder.
        configs: content of ``configs/*.json`` by file name, of those that are JSON objects.
        broken: remarks about files that are not, and about keys that stand twice.
    """

    root: Path
    configs: Mapping[str, dict[str, Any]]
    broken: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.name

    @property
    def metadata(self) -> dict[str, Any]:
        """Content of ``configs/metadata.json``; empty where there is none."""
        return self.configs.get("metadata.json", {})

    @property
    def bases(self) -> list[str]:
        """The configs that stand alone and are there."""
        return [name for name in BASES if name in self.configs]

    @property
    def overlays(self) -> list[str]:
        """All other configs."""
        return sorted(set(self.configs) - {*BASES, "metadata.json"})

    @functools.cached_property
    def inputs(self) -> set[str]:
        """Keys of what the network is given, such as ``image``."""
        return set(_at(self.metadata, "network_data_format", "inputs")) or {"image"}

    @functools.cached_property
    def chains(self) -> list[tuple[str, ...]]:
        """Every set of files that is run together: a base alone, and each overlay on each base that has its ids.

        An overlay of training may set ids that inference lacks (a recipe changes loss and network): what inference has
        of it is laid there.
        """
        made: list[tuple[str, ...]] = [(base,) for base in self.bases]
        for overlay in self.overlays:
            below = self.below(overlay)
            if below is not None:
                made.append((*below, overlay))
            if "inference.json" in self.configs and below != ("inference.json",):
                if self.known("inference.json", overlay) and not self.is_mode(overlay):
                    made.append(("inference.json", overlay))
        return made

    def is_mode(self, overlay: str) -> bool:
        """Whether an overlay changes what is run, as ``evaluate.json`` does, and is therefore for one base alone."""
        return any(normal_id(key.removeprefix("+")) in ("run", "initialize") for key in self.configs[overlay])

    def below(self, overlay: str) -> tuple[str, ...] | None:
        """The files under an overlay: the first of train, inference, train + another overlay that have all its ids."""
        others = [("train.json", other) for other in self.overlays if other != overlay]
        for files in [("train.json",), ("inference.json",), *others]:
            if files[0] in self.configs and not self.strange(files, overlay):
                return files
        return None

    def strange(self, files: Iterable[str], overlay: str) -> dict[str, str]:
        """Ids of an overlay that the files under it do not have, each with what to do."""
        ids = config_ids(self.laid(*files))
        # what MONAI itself runs may come anew
        ids = {"imports": [], "initialize": [], "finalize": [], **ids}
        keys = [normal_id(key.removeprefix("+")) for key in self.configs[overlay]]
        return {key: advice(ids, key) for key in keys if key not in ids}

    def known(self, base: str, overlay: str) -> dict[str, Any]:
        """The part of an overlay whose ids a base has."""
        ids = config_ids(self.configs[base])
        content = self.configs[overlay]
        return {key: value for key, value in content.items() if normal_id(key.removeprefix("+")) in ids}

    def laid(self, *files: str) -> dict[str, Any]:
        """The configs merged in order; on ``inference.json``, what it knows of them.

        Raises:
            InputError: when an id of an overlay has no parent to be set in.
        """
        first, *others = files
        partial = first == "inference.json"
        return lay(
            self.configs[first], {}, *(self.known(first, other) if partial else self.configs[other] for other in others)
        )


def open_bundle(folder: str | Path) -> Bundle:
    """Read the configs of a bundle.

    Raises:
        InputError: when the folder has no ``configs``.
    """
    root = Path(folder).resolve()
    if not (root / "configs").is_dir():
        raise InputError(
            problem(f"'{root}' is no bundle", "a bundle has a folder 'configs'", "name a bundle's own folder")
        )
    configs: dict[str, dict[str, Any]] = {}
    broken: list[str] = []
    for path in sorted((root / "configs").glob("*.json")):
        file, twice = f"configs/{path.name}", []
        try:
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=functools.partial(_object, twice))
        except (OSError, ValueError) as error:
            broken.append(remark(file, "", f"is not JSON ({error})", "correct its syntax; JSON has no comments"))
            continue
        broken += [remark(file, key, "stands twice, and the last one wins", "keep one of them") for key in twice]
        if isinstance(content, dict):
            configs[path.name] = content
        else:
            broken.append(remark(file, "", "holds no JSON object", "make it a {...} of ids"))
    return Bundle(root, configs, tuple(broken))


def _object(twice: list[str], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            twice.append(key)
        made[key] = value
    return made


def _at(config: Any, *keys: str) -> Any:
    for key in keys:
        config = config.get(key, {}) if isinstance(config, dict) else {}
    return config
