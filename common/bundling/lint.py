"""The gate: one table of rules that every bundle keeps, without exemptions."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from . import rules_agree, rules_code, rules_files, rules_ids, rules_input
from .bundle import Bundle, open_bundle
from .experiments import experiments

__all__ = ["RULES", "Finding", "Rule", "lint"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        name: short name, shown with every finding.
        check: gives a text for every breach.
        needs: ``files`` for rules that always run, ``json`` for those that need configs that can be read, ``code`` for
            those that import or build what configs name.
    """

    name: str
    check: Callable[[Bundle], list[str]]
    needs: str = "json"

    @property
    def statement(self) -> str:
        """The rule in one line."""
        return (self.check.__doc__ or "").strip().splitlines()[0]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One breach of a rule.

    Args:
        rule: the rule's name.
        text: file, id, what is wrong, what to do.
    """

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.text} [{self.rule}]"


RULES = (
    Rule("json", rules_files.json_files, "files"),
    Rule("documents", rules_files.documents, "files"),
    Rule("listed", rules_files.listed, "files"),
    Rule("logging", rules_files.logging_conf, "files"),
    Rule("recipes", rules_files.recipes, "files"),
    Rule("metadata", rules_files.metadata),
    Rule("input", rules_input.expected_input),
    Rule("segments", rules_input.dicom_segments),
    Rule("references", rules_ids.unknown_references),
    Rule("dead", rules_ids.dead_ids),
    Rule("overlays", rules_ids.overlay_ids),
    Rule("rivals", rules_ids.rivals),
    Rule("experiments", experiments),
    Rule("macros", rules_ids.macros),
    Rule("hidden", rules_ids.hidden_code),
    Rule("initialize", rules_ids.initialize),
    Rule("agreement", rules_agree.agreement),
    Rule("targets", rules_code.targets, "code"),
    Rule("properties", rules_code.properties, "code"),
    Rule("shapes", rules_code.network_shapes, "code"),
    Rule("resolves", rules_code.resolves, "code"),
)


def lint(bundle_dir: str | os.PathLike[str], quick: bool = False) -> list[Finding]:
    """Check a bundle's folder against `RULES`.

    Rules that build what the configs name come last and only where all others are kept: they would repeat the
    findings in the words of whatever fails.

    Args:
        bundle_dir: the bundle's folder.
        quick: leave out the rules that import or build what the configs name.

    Returns:
        the findings; none for a bundle that keeps all rules.

    Raises:
        InputError: when the folder is no bundle.
    """
    bundle = open_bundle(os.fspath(bundle_dir))
    found: list[Finding] = []
    for rule in RULES:
        if rule.needs == "json" and bundle.broken or rule.needs == "code" and (quick or found):
            continue
        found += [Finding(rule.name, text) for text in rule.check(bundle)]
    return found
