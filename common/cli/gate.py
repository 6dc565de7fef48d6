"""The words of ``volseg`` about bundles as such: check one, pack it, prove that what was packed works elsewhere."""

from __future__ import annotations

import os

from ..checks import InputError, parse_flag, problem
from .locate import find_bundle
from .words import refuse, split_names

__all__ = ["Gate"]


class Gate:
    """Commands that look at a bundle, or carry it, and run none of its lines here."""

    def lint(self, name: str, *rest: str, **unknown: str) -> int:
        """Check a bundle as the gate does; every finding is a line.

        Args:
            name: a bundle's name or folder.
            rest: none; all that follows is --option value.
            unknown: and refused: there is none.
        """
        from ..bundling.lint import lint  # here, since it brings torch and MONAI, seconds that no other command needs

        refuse([*rest, *(f"--{option}" for option in unknown)])
        findings = list(lint(find_bundle(name)))
        for finding in findings:
            print(finding)
        print(f"{name}: {len(findings)} findings" if findings else f"{name}: no findings")
        return 1 if findings else 0

    def pack(
        self,
        name: str,
        *rest: str,
        out: str = "packed",
        without_weights: str = "false",
        overlays: str = "",
        **unknown: str,
    ) -> int:
        """Make a bundle that stands alone, as a folder and a zip, with the code that it needs.

        Args:
            name: a bundle's name or folder.
            rest: none; all that follows is --option value.
            out: where both go.
            without_weights: pack a bundle that is not trained, too.
            overlays: the overlays that its weights were trained under: small.
            unknown: and refused: there is no other; what training got as one goes into an overlay.
        """
        from ..bundling.pack import pack  # here, since it brings torch and MONAI, seconds that no other command needs

        refuse(rest)
        if unknown:
            came = f"'--{next(iter(unknown))}' is not understood"
            rule = "weights are packed with the overlays that they were trained under, and no other settings"
            remedy = "put those into an overlay, a JSON in configs/ that docs/README.md names"
            raise InputError(problem(came, rule, remedy))
        unweighted = parse_flag(without_weights, "without_weights")
        for path in pack(find_bundle(name), out, without_weights=unweighted, overlays=split_names(overlays)):
            print(f"wrote {os.path.relpath(path)}")
        return 0

    def certify(
        self,
        *names: str,
        all: str = "false",  # noqa: A002, the word of the command line
        steps: str = "",
        out: str = "certified",
        environments: str = "",
        **unknown: str,
    ) -> int:
        """Pack bundles and put them before every tool that reads them, in clean environments; hours for all of them.

        The same line goes on where it was stopped; what passed is not repeated. Ends with 1 when a step failed.

        Args:
            names: names or folders of bundles.
            all: certify every bundle, and write docs/certified.md and docs/certified.json.
            steps: names of single steps: infer,onnx_export; all by default.
            out: where packed bundles, logs and tables go.
            environments: where the environments lie, about 10 GB; OUT/environments by default.
            unknown: and refused: there is no other.
        """
        from .certify import certify  # here, since it brings torch and MONAI

        refuse([f"--{option}" for option in unknown])
        bundles = [find_bundle(name) for name in names]
        return certify(bundles, parse_flag(all, "all"), split_names(steps), out, environments)
