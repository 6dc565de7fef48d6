"""The import closure: all that is needed, nothing else, and nothing that breaks under another name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import common
from common.bundling.closure import (
    NEVER_VENDORED,
    config_targets,
    defining_path,
    import_closure,
    rewrite_targets,
    vendored_files,
)
from common.checks import InputError


def names(paths):
    return [Path(path).as_posix() for path in paths]


def test_closure_follows_relative_imports_everywhere_and_takes_nothing_else(tiny_package):
    found = names(import_closure(["nets.net"], tiny_package))
    assert found == ["checks.py", "nets/late.py", "nets/net.py", "tools/deep.py"]


def test_inits_lose_their_re_exports_and_keep_docstring_and_constants(tiny_package):
    files = vendored_files(["nets.net"], tiny_package)
    assert files["__init__.py"].decode() == '"""A package."""\n\n__version__ = "1.2"\n'
    assert files["nets/__init__.py"].decode() == '"""Nets."""\n'
    assert files["tools/__init__.py"] == b""
    assert "nets/heavy.py" not in files


def test_data_files_come_from_needed_packages_only(tiny_package):
    data = [name for name in vendored_files(["nets.net"], tiny_package) if not name.endswith(".py")]
    assert data == ["nets/table.csv", "tools/table.json"]


def test_modules_are_carried_byte_for_byte(tiny_package):
    assert vendored_files(["nets.net"], tiny_package)["nets/net.py"] == (tiny_package / "nets/net.py").read_bytes()


def test_vendored_code_runs_under_another_name(tiny_package, tmp_path):
    for name, content in vendored_files(["nets.net"], tiny_package).items():
        path = tmp_path / "elsewhere" / "renamed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    code = "from renamed.nets.net import Net; print(Net().marker())"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "elsewhere", env={}, capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip() == "insiderulelate1.2", ran.stderr


@pytest.mark.parametrize(
    "line, said",
    [
        ("import {package}.checks", "line 1 of 'bad.py' names '{package}.checks' absolutely"),
        ("from {package} import checks", "line 1 of 'bad.py' names '{package}' absolutely"),
        ("from {package}.checks import rule", "line 1 of 'bad.py' names '{package}.checks' absolutely"),
        ("x = __import__('{package}.checks')", "line 1 of 'bad.py' names '{package}.checks' absolutely"),
        ("from .nets import Heavy", "bad.py imports 'nets.Heavy': it must be a module"),
        ("def f():\n    from .nowhere import x", "bad.py imports 'nowhere.x': it must be a module"),
        ("from .cli import main", "bad.py needs 'cli.py': bundling, certify, cli, __main__ are never part of a bundle"),
    ],
)
def test_what_would_break_under_another_name_is_refused(tiny_package, line, said):
    (tiny_package / "bad.py").write_text(line.format(package=tiny_package.name) + "\n")
    with pytest.raises(InputError) as error:
        import_closure(["bad"], tiny_package)
    assert said.format(package=tiny_package.name) in str(error.value)


def test_a_docstring_may_name_the_package(tiny_package):
    (tiny_package / "good.py").write_text(f'def f():\n    """{tiny_package.name}.checks"""\n')
    assert names(import_closure(["good"], tiny_package)) == ["good.py"]


def test_defining_path_looks_behind_re_exports(tiny_package):
    package = tiny_package.name
    assert defining_path(f"{package}.nets.Net") == (f"{package}.nets.net", "Net")
    assert defining_path(f"{package}.rule") == (f"{package}.checks", "rule")
    assert defining_path(f"{package}.nets.Net.narrow") == (f"{package}.nets.net", "Net.narrow")


def test_a_target_that_leads_nowhere_is_named(tiny_package):
    with pytest.raises(InputError, match=rf"_target_ '{tiny_package.name}.nets.Nett' leads nowhere"):
        defining_path(f"{tiny_package.name}.nets.Nett")


def test_an_alias_is_refused(tiny_package):
    (tiny_package / "alias.py").write_text("from functools import partial\nhalf = partial(int, base=2)\n")
    with pytest.raises(InputError, match="a target must be a class or function at the top of a module"):
        defining_path(f"{tiny_package.name}.alias.half")


def test_targets_are_found_and_rewritten_at_any_depth():
    config = {"a": [{"_target_": "pkg.A", "_": "pkg.A"}, {"b": {"_target_": "pkg.sub.B"}}], "c": {"_target_": "pkgs.C"}}
    assert list(config_targets(config, "pkg")) == ["pkg.A", "pkg.sub.B"]
    changed = rewrite_targets(config, {"pkg.A": "other.A"})
    assert changed["a"][0] == {"_target_": "other.A", "_": "pkg.A"}
    assert changed["c"] == {"_target_": "pkgs.C"} and config["a"][0]["_target_"] == "pkg.A"


def test_every_module_of_the_project_can_be_carried():
    root = Path(common.__file__).parent
    paths = [path.relative_to(root) for path in sorted(root.rglob("*.py")) if path.name != "__init__.py"]
    paths = [path for path in paths if path.with_suffix("").parts[0] not in NEVER_VENDORED]
    modules = [".".join(path.with_suffix("").parts) for path in paths]
    assert "networks.unet3d" in modules
    for module in modules:
        assert Path(module.replace(".", "/") + ".py") in import_closure([module], root)


def test_a_target_that_an_overlay_puts_in_place_by_its_id_is_found_and_rewritten():
    overlay = {"validate::evaluator::_target_": "common.engines.CaseEvaluator", "a#_target_": "common.files.sha256"}
    assert set(config_targets(overlay, "common")) == set(overlay.values())
    rewritten = rewrite_targets(overlay, {"common.engines.CaseEvaluator": "x.Y"})
    assert rewritten == {**overlay, "validate::evaluator::_target_": "x.Y"}
