"""``volseg certify``: packed bundles before every tool that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..certify.certification import Certification
from ..certify.checkout import checkout
from ..certify.environments import Environments
from ..certify.steps import ENVIRONMENTS, STEPS, Step
from ..certify.table import write_tables
from ..checks import InputError, nearest, problem
from ..files import check_writable
from .launch import INTERRUPTED, terminated_as_interrupted

__all__ = ["certify"]


def certify(bundles: Sequence[Path], everything: bool, steps: Sequence[str], out: str, environments: str) -> int:
    """Certify bundles, and write the tables of what is known of them.

    Args:
        bundles: their folders; none with `everything`.
        everything: certify every bundle of the checkout; with all steps, the tables are those of ``docs/``, too.
        steps: names of steps; none for all.
        out: where everything goes.
        environments: where the environments lie; ``environments`` in `out` by default.

    Returns:
        1 when a step failed, 130 when it was stopped, else 0.

    Raises:
        InputError: for an unknown step, no bundle, or no checkout.
    """
    root = checkout()
    wanted = _wanted(steps)
    if everything == bool(bundles):
        came = "bundles were named besides --all" if bundles else "no bundle was named"
        remedy = "write for example: volseg certify unet3d_sparse, or: volseg certify --all true"
        raise InputError(problem(came, "either some bundles are certified or all", remedy))
    if everything:
        bundles = sorted(path.parents[1] for path in (root / "bundles").glob("*/configs/metadata.json"))
    folder = Path(out).resolve()
    check_writable(folder)
    clean = Environments(
        root, Path(environments).resolve() if environments else folder / "environments", folder / "home"
    )
    results, built, failed = {}, {}, []
    for bundle in bundles:
        one = Certification(bundle, folder / bundle.name, clean, STEPS, ENVIRONMENTS)
        try:
            with terminated_as_interrupted():  # so that servers that were started are ended
                one.run(wanted, lambda text: print(text, flush=True))
        except KeyboardInterrupt:
            print(f"{one.name}: stopped; the same line goes on from here")
            return INTERRUPTED
        results[one.name] = one.results()
        built |= one.built
        failed += [
            f"{one.name}: {name}" for name, told in results[one.name]["steps"].items() if told["passed"] is False
        ]
    places = [folder, root / "docs"] if everything and not steps else [folder]
    for place in places:
        for path in write_tables(place, results, built, STEPS):
            print(f"wrote {path}")
    if failed:
        print(f"failed: {', '.join(failed)}; the logs lie in {folder}/BUNDLE/STEP.log")
    return 1 if failed else 0


def _wanted(names: Sequence[str]) -> list[Step]:
    known = {step.name: step for step in STEPS}
    for name in names:
        if name not in known:
            near = nearest(name, known)
            came, rule = f"there is no step '{name}'", f"the steps are {', '.join(known)}"
            raise InputError(problem(came, rule, f"write '{near}'" if near else "name some of these"))
    return [step for step in STEPS if not names or step.name in names]
