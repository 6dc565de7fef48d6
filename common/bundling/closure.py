"""Which modules a bundle needs of a package, and where the things that its configs name are defined."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..checks import InputError, problem

__all__ = ["NEVER_VENDORED", "config_targets", "defining_path", "import_closure", "rewrite_targets", "vendored_files"]

# they know bundles as files, or the command line: no bundle needs them
NEVER_VENDORED = ("bundling", "certify", "cli", "__main__")


def config_targets(config: Any, package: str) -> Iterator[str]:
    """Every ``_target_`` of `config` that names something in `package`, at any depth.

    Args:
        config: parsed JSON.
        package: top package name, e.g. ``common``.
    """
    if isinstance(config, dict):
        for key, target in config.items():
            if _names_target(key) and isinstance(target, str) and target.startswith(f"{package}."):
                yield target
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from config_targets(item, package)


def _names_target(key: str) -> bool:
    """Whether a key holds a target: a component's own, or one that an overlay puts in its place by id."""
    return re.split("::|#", key)[-1] == "_target_"


def rewrite_targets(config: Any, paths: dict[str, str]) -> Any:
    """A copy of `config` in which every ``_target_`` found in `paths` is replaced by its entry."""
    if isinstance(config, dict):
        return {
            key: paths[value]
            if _names_target(key) and isinstance(value, str) and value in paths
            else rewrite_targets(value, paths)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [rewrite_targets(item, paths) for item in config]
    return config


def defining_path(target: str) -> tuple[str, str]:
    """Where the thing that `target` names is defined, behind any re-export.

    Args:
        target: dotted path, e.g. ``common.networks.UNet3D``.

    Returns:
        its module and its dotted name in there, e.g. ``("common.networks.unet3d", "UNet3D")``.

    Raises:
        InputError: when the path leads nowhere, or to something that does not say where it is defined.
    """
    module, names = _import_longest(target)
    thing = getattr(module, names[0], None) if names else None
    if thing is None:
        raise InputError(
            problem(
                f"_target_ '{target}' leads nowhere",
                "it must name a class or function of the package",
                "check its spelling with: volseg lint NAME",
            )
        )
    home = getattr(thing, "__module__", None)
    first = getattr(thing, "__qualname__", names[0])
    if home is None or getattr(importlib.import_module(home), first, None) is not thing:
        raise InputError(
            problem(
                f"_target_ '{target}' is not found where it says that it is defined ('{home}.{first}')",
                "a target must be a class or function at the top of a module",
                "write it as a class or def, not as an alias or a partial",
            )
        )
    return home, ".".join([first, *names[1:]])


def _import_longest(target: str) -> tuple[Any, list[str]]:
    """The longest importable module at the start of a dotted path, and the names that are left."""
    parts = target.split(".")
    for count in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:count])
        try:
            return importlib.import_module(name), parts[count:]
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, and something that it imports is not
    return None, []


def import_closure(modules: Iterable[str], package_dir: Path) -> list[Path]:
    """Files of the modules that `modules` need of their own package, themselves included.

    Relative imports are followed by reading the source, at module level and inside functions. Package ``__init__``
    files are no members: `vendored_files` adds them, reduced.

    Args:
        modules: dotted names inside the package, without its name (``networks.unet3d``).
        package_dir: folder of the package.

    Returns:
        paths relative to `package_dir`, sorted.

    Raises:
        InputError: for an absolute import of the package, an import that leads nowhere, a name taken from a package's
            ``__init__`` instead of its module, or a need of `NEVER_VENDORED`.
    """
    waiting = [(_module_file(package_dir, name.split("."), "a config"), "a config") for name in modules]
    found: set[Path] = set()
    while waiting:
        path, wanted_by = waiting.pop()
        if path.with_suffix("").parts[0] in NEVER_VENDORED:
            raise InputError(
                problem(
                    f"{wanted_by} needs '{path}'",
                    f"{', '.join(NEVER_VENDORED)} are never part of a bundle",
                    "move what is needed to a lower layer",
                )
            )
        if path in found:
            continue
        found.add(path)
        waiting += [(needed, str(path)) for needed in _needs(package_dir, path)]
    return sorted(found)


def _module_file(package_dir: Path, parts: list[str], wanted_by: str) -> Path:
    path = Path(*parts).with_suffix(".py")
    if not (package_dir / path).is_file():
        raise InputError(
            problem(
                f"{wanted_by} imports '{'.'.join(parts)}'",
                f"it must be a module of {package_dir.name}/",
                "import from the module that defines the name, not from a package's __init__",
            )
        )
    return path


def _needs(package_dir: Path, path: Path) -> Iterator[Path]:
    """Modules that one module imports, relative to the package."""
    tree = ast.parse((package_dir / path).read_text(encoding="utf-8"), filename=str(path))
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if _has_docstring(node)}
    for node in ast.walk(tree):
        _refuse_absolute(node, package_dir.name, path, docstrings)
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        base = list(path.parent.parts)
        base = base[: len(base) - (node.level - 1)] + (node.module.split(".") if node.module else [])
        if (package_dir.joinpath(*base)).with_suffix(".py").is_file() and base:
            yield Path(*base).with_suffix(".py")
            continue
        constants = _constants(package_dir.joinpath(*base, "__init__.py"))
        for alias in node.names:
            if alias.name not in constants:
                yield _module_file(package_dir, [*base, alias.name], str(path))


def _has_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and ast.get_docstring(node, clean=False) is not None
    )


def _refuse_absolute(node: ast.AST, package: str, path: Path, docstrings: set[int]) -> None:
    """Raise for anything that reaches the package by its own name: under another name it would not be found."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        names = [node.module or ""]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
        names = [node.value] if re.fullmatch(rf"{package}(\.\w+)+", node.value) else []
    for name in names:
        if name == package or name.startswith(f"{package}."):
            raise InputError(
                problem(
                    f"line {node.lineno} of '{path}' names '{name}' absolutely",
                    f"modules of {package}/ reach each other relatively, for they are carried under another name",
                    "write a relative import (from ..networks.unet3d import UNet3D)",
                )
            )


def _constants(init: Path) -> dict[str, str]:
    """Names that a package's ``__init__`` gives a literal, with the source of each; ``__all__`` is not one."""
    if not init.is_file():
        return {}
    source = init.read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id != "__all__":
                    found[target.id] = ast.get_source_segment(source, node)
    return found


def vendored_files(modules: Iterable[str], package_dir: Path) -> dict[str, bytes]:
    """The import closure of `modules` as it is written into a bundle.

    Modules are carried byte for byte. Each package's ``__init__`` keeps its docstring and literal constants
    (``__version__``) and loses its re-exports, which would pull in everything else. Files that are not Python lying in
    a package of which a module is carried come along, subfolders without an ``__init__`` included.

    Args:
        modules: dotted names inside the package, without its name.
        package_dir: folder of the package.

    Returns:
        content by path relative to the package, with ``/``, sorted.
    """
    closure = import_closure(modules, package_dir)
    files = {path.as_posix(): (package_dir / path).read_bytes() for path in closure}
    for folder in {parent for path in closure for parent in path.parents}:
        init = package_dir / folder / "__init__.py"
        files[(folder / "__init__.py").as_posix()] = _reduced_init(init)
    for folder in {path.parent for path in closure}:
        for path in _data_files(package_dir / folder):
            files[path.relative_to(package_dir).as_posix()] = path.read_bytes()
    return dict(sorted(files.items()))


def _reduced_init(init: Path) -> bytes:
    docstring = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")), clean=False) if init.is_file() else None
    lines = [f'"""{docstring}"""'] if docstring else []
    if constants := list(_constants(init).values()):
        lines += ["", *constants] if lines else constants
    return ("\n".join(lines) + "\n").encode("utf-8") if lines else b""


def _data_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__pycache__")):
            continue
        if path.is_dir():
            if not (path / "__init__.py").exists():
                yield from _data_files(path)
        elif path.suffix not in (".py", ".pyc"):
            yield path
