"""Rules that import what a bundle names and build it: targets, arguments, properties, shapes, every id of every run."""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.scripts import verify_net_in_out
from torch.nn.modules.module import register_module_forward_hook

from ..checks import InputError, nearest
from ..files import write_json
from .bundle import Bundle, remark
from .ids import config_ids, lay, normal_id, references, strings
from .rules_ids import chain_name, run_ids
from .targets import argument_faults, is_component, locate

__all__ = ["network_shapes", "properties", "resolves", "targets"]

_MODES = {"train.json": "train", "inference.json": "infer"}


def targets(bundle: Bundle) -> list[str]:
    """Every ``_target_`` names a class or function, and its arguments are those that it takes and needs."""
    found = []
    # what an overlay adds to ("+ID") has arguments of its own
    there = config_ids(bundle.configs.get("inference.json", {})) | config_ids(bundle.configs.get("train.json", {}))
    for file, config in bundle.configs.items():
        if file == "metadata.json":
            continue
        for name, component in config_ids(config).items():
            if name.startswith("+") and is_component(component):
                component = {**there.get(normal_id(name.removeprefix("+")), {}), **component}
            target = component.get("_target_") if is_component(component) else None
            if isinstance(target, str) and not target.startswith(("$", "@", "%")):
                found += [remark(f"configs/{file}", name, *fault) for fault in _target_faults(target, component)]
    return found


def _target_faults(target: str, component: dict[str, Any]) -> Iterator[tuple[str, str]]:
    try:
        made = locate(target)
    except Exception as error:  # whatever a module raises while it is imported
        yield f"'{target}' can not be imported ({_cause(error)})", "mend the module"
        return
    if made is None:
        yield f"'{target}' leads nowhere", "correct the name; a short one is MONAI's, any other is module and name"
        return
    unknown, missing, named = argument_faults(made, component)
    for argument in unknown:
        close = nearest(argument, named)
        remedy = f"write '{close}'" if close else f"remove it; it takes {', '.join(named) or 'nothing'}"
        yield f"{target} takes no argument '{argument}'", remedy
    for argument in missing:
        yield f"{target} needs an argument '{argument}'", "add it"


def properties(bundle: Bundle) -> list[str]:
    """MONAI's check_properties() has nothing to say of train, train with evaluate, and inference."""
    found = []
    for files in [("train.json",), ("train.json", "evaluate.json"), ("inference.json",)]:
        if not set(files) <= set(bundle.configs):
            continue
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "configs", files[0])
            write_json(path, lay(small(bundle, files, folder), {"initialize": []}))
            try:
                workflow = ConfigWorkflow(
                    config_file=str(path),
                    meta_file=str(bundle.root / "configs" / "metadata.json"),
                    logging_file=False,
                    workflow_type=_MODES[files[0]],
                )
                workflow.initialize()
                missing = [
                    f"the property '{name}' is missing or wired to another id"
                    for name in workflow.check_properties() or []
                ]
            except Exception as error:  # MONAI raises for some missing ids, and whatever a component raises
                missing = [f"check_properties fails ({_cause(error)})"]
        remedy = "see monai.bundle.properties for the ids that every consumer expects"
        found += [remark(chain_name(files), "", came, remedy) for came in missing]
    return found


def network_shapes(bundle: Bundle) -> list[str]:
    """The network turns the input that the metadata states into the output that it states: channels, dtype, size.

    Run without memory or arithmetic (torch's meta device) where the network allows that.
    """
    if not {"metadata.json", "inference.json"} <= set(bundle.configs):
        return []
    sizes: list[tuple[int, ...]] = []

    def note(module: Any, inputs: Any, output: Any) -> None:
        sizes.append(tuple(output.shape[2:]) if isinstance(output, torch.Tensor) else ())

    configs = bundle.root / "configs"
    hook = register_module_forward_hook(note)
    try:
        with _quiet():
            for device in ("meta", "cpu"):
                try:
                    verify_net_in_out(
                        "network_def", str(configs / "metadata.json"), str(configs / "inference.json"), device=device
                    )
                    break
                except Exception as error:
                    fault = error
            else:
                raise fault
    except Exception as error:  # whatever a network raises
        remedy = "correct the metadata's network_data_format or the network's arguments"
        return [remark("configs/inference.json", "network_def", f"verify_net_in_out fails ({_cause(error)})", remedy)]
    finally:
        hook.remove()
    stated = bundle.metadata["network_data_format"]["outputs"]["pred"]["spatial_shape"]
    if sizes and all(isinstance(size, int) for size in stated) and tuple(stated) != sizes[-1]:
        name = "network_data_format::outputs::pred::spatial_shape"
        came = f"is {list(stated)}, the network makes {list(sizes[-1])}"
        return [remark("configs/metadata.json", name, came, "write what the network makes")]
    return []


def resolves(bundle: Bundle) -> list[str]:
    """On a tiny data set, everything that any run of any recipe needs can be built (nothing is run).

    MONAI's check_properties() is content although an earlier stage names a missing id; this is not.
    """
    found = []
    for files in bundle.chains:
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            try:
                config = small(bundle, files, folder)
            except InputError:
                continue  # the overlay rule says so
            parser = ConfigParser(config)
            for name, text in _steps(config):
                for fault in _step_faults(parser, text):
                    remedy = "define what is missing, or correct the arguments"
                    line = remark(chain_name(files), name, fault, remedy)
                    if not any(fault in earlier for earlier in found):
                        found.append(line)
    return found


def _steps(config: dict[str, Any]) -> list[tuple[str, str]]:
    """The expressions that MONAI runs: initialize, every run id, finalize."""
    names = ["initialize", *run_ids(config), "finalize"]
    return [step for name in names for step in strings(config.get(name), name)]


def _step_faults(parser: ConfigParser, text: str) -> Iterator[str]:
    """What of a step can not be built; the step itself is not run."""
    for wanted in references(text):
        if wanted in run_ids(parser.get()):
            continue  # a run that stands for another
        try:
            made = parser.get_parsed_content(wanted)
        except Exception as error:  # whatever a component raises
            yield f"'@{wanted}' can not be built ({_cause(error)})"
            continue
        for attribute in re.findall(rf"@{re.escape(wanted)}\.(\w+)", text.replace("#", "::")):
            if not hasattr(made, attribute):
                yield f"'@{wanted}' has no '{attribute}'"


def small(bundle: Bundle, files: tuple[str, ...], folder: str) -> dict[str, Any]:
    """The merged config with the overlay ``small`` right over the base, on the CPU, writing into `folder`."""
    under = ("small.json",) if "small.json" in bundle.configs else ()
    config = bundle.laid(files[0], *under, *files[1:])
    places = {
        "bundle_root": str(bundle.root),
        "output_dir": f"{folder}/eval",
        "model_path": f"{folder}/model.pt",
        "device": "cpu",
    }
    return lay(config, {name: value for name, value in places.items() if name in config})


def _cause(error: BaseException) -> str:
    """The first error of a chain, on one line: what MONAI wraps it in says less."""
    while (error.__cause__ or error.__context__) is not None:
        error = error.__cause__ or error.__context__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) < 400 else text[:397] + '...'}".rstrip(".")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MONAI's notices about running a config that one wrote oneself are of no use here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
