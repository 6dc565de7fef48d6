"""The networks of a packed bundle one by one: the whole, and every child that its training trains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import step
import torch
from monai.bundle import ConfigParser
from monai.bundle.scripts import _get_fake_spatial_shape

WHOLE = "network_def"


class Network:
    """One network with its weights and an input.

    Args:
        case: of the step.
        name: how it is told of.
        expression: what gives it, in a config; the whole is :data:`WHOLE` itself.
        module: the network, with the weights of the bundle, for evaluation.
        whole_input: an input of the whole composite.
    """

    def __init__(
        self, case: step.Case, name: str, expression: str, module: torch.nn.Module, whole_input: torch.Tensor
    ) -> None:
        self.case, self.name, self.expression, self.module = case, name, expression, module
        self.input = whole_input if expression == WHOLE else fitting(module, whole_input)

    def export(self, command: str, suffix: str) -> Path:
        """Export by a command of MONAI's, as a person would, and give back the file."""
        place = self.case.work / "networks" / self.name
        place.mkdir(parents=True, exist_ok=True)
        weights, made = place / "model.pt", place / f"model.{suffix}"
        torch.save(self.module.state_dict(), weights)
        files = {"meta_file": self.case.files("metadata")[0], "config_file": self.case.files("inference")[0]}
        child = {} if self.expression == WHOLE else {"exported": f"${self.expression}"}
        step.tool(
            self.case,
            command,
            net_id="exported" if child else WHOLE,
            filepath=str(made),
            ckpt_file=str(weights),
            input_shape=list(self.input.shape),
            **files,
            **child,
        )
        return made

    def answer(self) -> list[torch.Tensor]:
        """What it answers to its input."""
        with torch.no_grad():
            return tensors(self.module(self.input))


def networks(case: step.Case) -> Iterator[Network]:
    """The whole composite, and where its stages train children or members of it, each of these."""
    parser = ConfigParser()
    parser.read_config(case.files("inference"))
    whole = parser.get_parsed_content(WHOLE)
    whole.load_state_dict(torch.load(case.model, weights_only=True, map_location="cpu"))
    whole.eval()
    form = case.config("metadata")["network_data_format"]["inputs"]["image"]
    torch.manual_seed(0)
    # sizes may be rules such as 32*n: the size that MONAI itself makes of them
    image = torch.rand(1, form["num_channels"], *_get_fake_spatial_shape(form["spatial_shape"]))
    yield Network(case, "network", WHOLE, whole, image)
    for name, expression in children(case, whole).items():
        module = eval(expression.replace(f"@{WHOLE}", "whole"), {"whole": whole})  # of the bundle's own config
        yield Network(case, name, expression, module, image)


def equal(found: list[torch.Tensor], wanted: list[torch.Tensor], name: str, tolerance: float = 1e-4) -> float:
    """The largest difference between two answers, relative to the largest value.

    Raises:
        StepError: when it is above the tolerance, or the answers are of other forms.
    """
    sizes = [[tuple(one.shape) for one in answer] for answer in (found, wanted)]
    step.require(sizes[0] == sizes[1], f"{name}: answers of {sizes[0]} instead of {sizes[1]}")
    worst = 0.0
    for one, other in zip(found, wanted, strict=True):
        step.require(bool(other.isfinite().all()), f"{name}: the answer is not finite")
        worst = max(worst, float((one - other).abs().max() / other.abs().max().clamp_min(1e-6)))
    step.require(worst <= tolerance, f"{name}: answers differ by {worst:.2g} of the largest value")
    return worst


def children(case: step.Case, whole: torch.nn.Module) -> dict[str, str]:
    """Names of what the stages of a bundle train, where that is not the whole, each with its expression in a config.

    Args:
        case: of the step.
        whole: the composite; that its stages train as an ensemble has members.
    """
    found: dict[str, str] = {}
    for section in case.config("train").values():
        trainer = section.get("trainer") if isinstance(section, dict) else None
        if not isinstance(trainer, dict):
            continue
        expression = str(trainer.get("network", ""))
        if named := re.fullmatch(r"\$@network(\.\w+|\.child\('(\w+)'\))", expression):
            found[trainer["stage"]] = f"@{WHOLE}{named[1]}"
        elif isinstance(members := getattr(whole, "members", None), torch.nn.ModuleDict):
            found |= {member: f"@{WHOLE}.members[{member!r}]" for member in members}
    return found


def fitting(module: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The image, or a slice of it where a child is for slices; a composite may be of such and take volumes."""
    flat = any(isinstance(part, torch.nn.Conv2d) for part in module.modules())
    deep = any(isinstance(part, torch.nn.Conv3d) for part in module.modules())
    return image[..., 0].contiguous() if flat and not deep else image


def tensors(answer: object) -> list[torch.Tensor]:
    """What a network answers, as a list."""
    return [one.float() for one in (answer if isinstance(answer, (list, tuple)) else [answer])]
