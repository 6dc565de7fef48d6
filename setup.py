"""What setup.cfg has no words for: a wheel carries the bundles, as ``common/_bundles``, so that it runs on its own."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# what a bundle is made of; weights and results lie beside it in a working copy and stay there
CARRIED = ("configs", "docs", "LICENSE", "large_files.yml")


class BuildWithBundles(build_py):
    """Copy ``bundles/NAME`` into the package being built; an editable install finds them where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "common" / "_bundles"
        shutil.rmtree(target, ignore_errors=True)
        for metadata in sorted(Path("bundles").glob("*/configs/metadata.json")):
            bundle = metadata.parents[1]
            for part in (bundle / name for name in CARRIED):
                if part.is_dir():
                    shutil.copytree(part, target / bundle.name / part.name)
                elif part.is_file():
                    (target / bundle.name).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(part, target / bundle.name / part.name)


setup(cmdclass={"build_py": BuildWithBundles})
