"""Make a bundle that stands alone: its configs, documents, weights and the code that it needs, nothing else."""

from __future__ import annotations

import importlib
import io
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..checks import InputError, WeightsError, problem
from ..files import atomic_path, sha256, write_json
from ..weights import info_path, load_weights, read_info
from .archive import MANIFEST, check_replaceable, file_hashes, replace_folder, write_zip
from .closure import config_targets, defining_path, rewrite_targets, vendored_files
from .lint import lint
from .recipe import bake, format_json, read_configs, refuse_hidden_code, resolved, shape_metadata, stage_names

__all__ = ["pack"]

PACKAGE = __package__.split(".")[0]
PHANTOM_NOTE = "THE WEIGHTS WERE TRAINED ON SYNTHETIC PHANTOMS: results on real volumes mean nothing."
_CARRIED = ("configs", "docs", "LICENSE", "large_files.yml")


def pack(
    bundle_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    without_weights: bool = False,
    overlays: Sequence[str] = (),
    package: str = PACKAGE,
) -> tuple[Path, Path]:
    """Write ``OUT/NAME`` and ``OUT/NAME.zip``: a bundle that runs where the repository is not.

    It holds configs, docs, LICENSE, ``models/model.pt`` with its sidecar, each stage's own weights as
    ``models/model_STAGE.pt``, and as ``scripts_NAME`` the modules that its configs need, every ``_target_`` pointing
    there. ``PACKED.json`` lists all files with their SHA-256. The same input gives the same bytes.

    Args:
        bundle_dir: folder of the bundle.
        out_dir: where the folder and the archive go; an untouched earlier pack there is replaced.
        without_weights: pack a bundle that is not trained, too.
        overlays: configs to write into ``train.json`` and ``inference.json``, such as ``small``: those under which
            the weights were trained, since consumers read ``inference.json`` alone.
        package: name of the package that the configs reach.

    Returns:
        the folder and the archive.

    Raises:
        InputError: for findings of the lint, code that cannot be carried, or an output that would lose something.
        WeightsError: without weights, or with weights that do not fit ``inference.json``.
    """
    bundle, out = Path(bundle_dir).resolve(), Path(out_dir).resolve()
    _check_bundle(bundle)
    configs = bake(read_configs(bundle / "configs"), overlays)
    name = str(configs["metadata.json"].get("name", bundle.name))
    scripts = f"scripts_{name}"
    if not scripts.isidentifier():
        raise InputError(
            problem(
                f"the bundle's name is '{name}'",
                "its code is a Python package named after it",
                "use letters, digits and underscores only",
            )
        )
    model = bundle / "models" / "model.pt"
    if not model.is_file() and not without_weights:
        raise WeightsError(
            problem(
                f"'{model}' does not exist",
                "a packed bundle carries its weights",
                f"train first (volseg train {name}), or pass --without-weights",
            )
        )
    check_replaceable(out / name, out / f"{name}.zip")
    _check_network(configs, bundle, model, overlays)

    made = out / f".{secrets.token_hex(4)}.{name}"
    try:
        _carry(bundle, made)
        _vendor(configs, made, scripts, package)
        if model.is_file():
            _carry_weights(model, made / "models", stage_names(configs.get("train.json", {})))
        manifest = _manifest(made, configs["metadata.json"], overlays)
        (made / MANIFEST).write_text(format_json(manifest), encoding="utf-8")
        write_zip(made, out / f"{name}.zip")
        replace_folder(made, out / name)
    except OSError as error:
        raise InputError(
            problem(
                f"packing into '{out}' failed ({error.strerror or error})",
                "it must be writable and take it all",
                "choose another folder, or make room; what was there before is untouched",
            )
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return out / name, out / f"{name}.zip"


def _check_bundle(bundle: Path) -> None:
    for name in ("metadata.json", "inference.json"):
        if not (bundle / "configs" / name).is_file():
            raise InputError(
                problem(
                    f"'{bundle}' is no bundle",
                    f"it must hold configs/{name}",
                    "pass the folder of a bundle, e.g. bundles/unet3d_sparse",
                )
            )
    if (bundle / MANIFEST).is_file():
        raise InputError(
            problem(
                f"'{bundle}' is packed already",
                "only a bundle of the repository can be packed",
                "copy the folder or its archive as it is",
            )
        )
    findings = list(lint(bundle, quick=True))
    if findings:
        raise InputError(
            problem(
                f"the lint has {len(findings)} findings about {bundle.name}, first: {findings[0]}",
                "a bundle with findings is not packed",
                f"see them all with: volseg lint {bundle.name}",
            )
        )


def _check_network(configs: dict[str, Any], bundle: Path, model: Path, overlays: Sequence[str]) -> None:
    """The network of ``inference.json`` takes the weights strictly; metadata states its sizes, and phantom weights.

    Viewers show the description. Handlers, which warn of phantom weights otherwise, do not run in MONAI Label.
    """
    config = configs["inference.json"]
    network = resolved(config, "network_def", {"bundle_root": str(bundle), "device": "cpu"})
    if overlays and "patch_size" in config:
        shape_metadata(configs["metadata.json"], network, resolved(config, "patch_size"))
    if model.is_file():
        try:
            info = load_weights(network, model)
        except WeightsError as error:
            raise WeightsError(
                f"{error} Consumers read a packed bundle's inference.json alone: if the weights were trained under an "
                "overlay, pack with it (--overlays small)."
            ) from error
        if info.get("phantom"):
            metadata = configs["metadata.json"]
            metadata["description"] = f"{PHANTOM_NOTE} {metadata.get('description', '')}".strip()


def _carry(bundle: Path, made: Path) -> None:
    for name in _CARRIED:
        source = bundle / name
        if source.is_dir():
            shutil.copytree(source, made / name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        elif source.is_file():
            made.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, made / name)


def _vendor(configs: dict[str, Any], made: Path, scripts: str, package: str) -> None:
    """Write the code that the configs need, and the configs pointing at it."""
    homes = {target: defining_path(target) for target in sorted(set(config_targets(list(configs.values()), package)))}
    paths, needed = {}, set()
    for target, (module, attribute) in homes.items():
        if module.startswith(f"{package}."):
            needed.add(module.removeprefix(f"{package}."))
            module = f"{scripts}{module.removeprefix(package)}"
        paths[target] = f"{module}.{attribute}"
    root = Path(importlib.import_module(package).__file__).parent
    for name, content in vendored_files(needed, root).items():
        target = made / scripts / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    for name, config in configs.items():
        (made / "configs" / name).write_text(format_json(rewrite_targets(config, paths)), encoding="utf-8")
    refuse_hidden_code(made / "configs", package)


def _carry_weights(model: Path, folder: Path, stages: Sequence[str]) -> None:
    """The weights and their sidecar, and those of each stage's network by itself, for exports."""
    folder.mkdir()
    shutil.copyfile(model, folder / model.name)
    if info_path(model).is_file():
        shutil.copyfile(info_path(model), folder / info_path(model).name)
    state = torch.load(model, map_location="cpu", weights_only=True) if stages else {}
    for stage in stages:
        child = {key.removeprefix(f"{stage}."): value for key, value in state.items() if key.startswith(f"{stage}.")}
        if not child:
            raise WeightsError(
                problem(
                    f"'{model}' holds nothing of stage '{stage}'",
                    "a stage is a named child of network_def",
                    "let the stage in train.json be that child's name",
                )
            )
        # MONAI Label takes the shortest name in models/ for the weights of the bundle: these are longer than model.pt
        path = folder / f"{model.stem}_{stage.replace('.', '_')}.pt"
        buffer = io.BytesIO()  # saved to a file, the archive inside would be named after that file
        torch.save(child, buffer)
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
        write_json(info_path(path), {**read_info(model), "stage": stage, "sha256": sha256(path)})


def _manifest(made: Path, metadata: Any, overlays: Sequence[str]) -> dict[str, Any]:
    files = file_hashes(made)
    return {
        "bundle": metadata.get("name"),
        "version": metadata.get("version"),
        "packed_by": f"volseg {__version__}",
        "overlays": list(overlays),
        "weights": files.get("models/model.pt"),
        "files": files,
    }
