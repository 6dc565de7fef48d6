"""The house keeps its shape: imports point down the layers, relative, at the top; files and functions stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "common"
LAYERS = (
    ("checks",),
    ("geometry",),
    ("files", "weights"),
    ("networks", "losses", "transforms", "metrics", "data", "dicom", "visualize"),
    ("inferers",),
    ("handlers",),
    ("engines",),
    ("bundling",),
    ("certify",),
    ("cli", "__main__"),
)
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 400, 80  # the aim is 300 and 60; past these a room wants splitting


def _name(parts: tuple[str, ...]) -> str:
    return ".".join(parts)


def _relative_target(node: ast.ImportFrom, module: tuple[str, ...]) -> tuple[str, ...]:
    """The module that a relative import names, as parts below the package; () is the package itself."""
    base = module[: len(module) - node.level]
    return (*base, *(node.module.split(".") if node.module else ()))


def faults(source: str, module: tuple[str, ...], modules: set[tuple[str, ...]]) -> list[str]:
    """What breaks the rules of imports in one module.

    Args:
        source: its text.
        module: its name below the package, in parts.
        modules: the names of all modules.
    """
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "common" for alias in node.names):
            found.append(f"line {node.lineno}: absolute import of the package")
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level == 0:
            if node.module.split(".")[0] == "common":
                found.append(f"line {node.lineno}: absolute import of the package")
            continue
        # cli is never packed into a bundle, and starting it must not take the seconds that torch and MONAI take
        if node not in tree.body and module[0] != "cli":
            found.append(f"line {node.lineno}: relative import that is not at the top of the module")
        target = _relative_target(node, module)
        for alias in node.names:
            full = (*target, alias.name) if (*target, alias.name) in modules else target
            if full and RANK[full[0]] > RANK[module[0]]:
                found.append(f"line {node.lineno}: {_name(module)} is below {_name(full)} and imports it")
            if full and full not in modules and module != ("__main__",):
                found.append(
                    f"line {node.lineno}: {alias.name} comes from a package, not from the module that defines it"
                )
    return found


KNOWN = {
    ("checks",),
    ("files",),
    ("geometry", "boxes"),
    ("networks", "unet3d"),
    ("bundling", "pack"),
    ("cli", "commands"),
}


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        (("networks", "unet3d"), "import common.checks", "absolute"),
        (("networks", "unet3d"), "from common.checks import problem", "absolute"),
        (("networks", "unet3d"), "def f():\n    from ..checks import problem", "not at the top"),
        (("geometry", "boxes"), "from ..networks.unet3d import UNet3D", "geometry.boxes is below networks.unet3d"),
        (("checks",), "from .files import sha256", "checks is below files"),
        (("networks", "unet3d"), "from ..geometry import Box", "Box comes from a package"),
    ],
)
def test_faults_are_found(module, source, fault):
    assert any(fault in found for found in faults(source, module, KNOWN))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            ("networks", "unet3d"),
            "from ..checks import problem\nfrom ..geometry.boxes import Box\nfrom ..geometry import boxes",
        ),
        (("bundling", "pack"), "from .. import __version__\nimport commonmark\nfrom collections import abc"),
        (("cli", "commands"), "def f():\n    from ..bundling.pack import pack"),
    ],
)
def test_what_is_allowed_is_no_fault(module, source):
    assert faults(source, module, KNOWN) == []


@pytest.mark.parametrize("module", [parts for parts in MODULES if parts[-1] != "__init__"], ids=_name)
def test_imports(module):
    modules = {parts for parts in MODULES if parts[-1] != "__init__"}
    assert faults(PACKAGE.joinpath(*module).with_suffix(".py").read_text(encoding="utf-8"), module, modules) == []


@pytest.mark.parametrize("module", [parts for parts in MODULES if parts[-1] == "__init__"], ids=_name)
def test_packages_only_re_export(module):
    tree = ast.parse(PACKAGE.joinpath(*module).with_suffix(".py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in tree.body[1:]:
        names = (
            [target.id for target in node.targets if isinstance(target, ast.Name)]
            if isinstance(node, ast.Assign)
            else []
        )
        re_export = isinstance(node, ast.ImportFrom) and (node.level == 1 or node.module == "__future__")
        assert re_export or names in (["__all__"], ["__version__"]), f"line {node.lineno}: more than a re-export"


def test_no_two_modules_import_each_other():
    modules = {parts for parts in MODULES if parts[-1] != "__init__"}
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for module in modules:
        tree = ast.parse(PACKAGE.joinpath(*module).with_suffix(".py").read_text(encoding="utf-8"))
        targets = {
            candidate
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.level
            for alias in node.names
            for target in [_relative_target(node, module)]
            for candidate in (target, (*target, alias.name))
        }
        graph[module] = targets & modules
    done: set[tuple[str, ...]] = set()

    def visit(module: tuple[str, ...], path: tuple[tuple[str, ...], ...]) -> None:
        assert module not in path, " -> ".join(map(_name, (*path, module)))
        if module not in done:
            for target in graph[module]:
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_sizes(module):
    source = PACKAGE.joinpath(*module).with_suffix(".py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
            lines = node.end_lineno - body[0].lineno + 1
            assert lines <= FUNCTION_LINES, f"{node.name} has {lines} lines"


def test_every_room_has_a_layer():
    rooms = {parts[0] for parts in MODULES} - {"__init__"}
    assert rooms <= set(RANK)
