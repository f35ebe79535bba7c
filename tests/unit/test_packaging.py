"""The lock and pyproject.toml agree, and neither names a machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
PINS = {canonicalize_name(n): v for n, v in (line.split("==") for line in LOCK if line and not line.startswith("#"))}
INSTALLED = ("runtime", "serve", "train", "flows", "cloud", "dask", "dev")  # the extras that `make setup` brings


@pytest.mark.parametrize(
    "wanted",
    [*PROJECT["dependencies"], *(r for extra in INSTALLED for r in PROJECT["optional-dependencies"][extra])],
)
def test_the_lock_holds_a_version_that_pyproject_allows(wanted: str) -> None:
    requirement = Requirement(wanted)
    pin = PINS.get(canonicalize_name(requirement.name))
    assert pin is not None, f"{requirement.name} is not in requirements.lock: install it, then `make lock`"
    assert requirement.specifier.contains(pin), (
        f"requirements.lock has {requirement.name} {pin}, expected {requirement}"
    )


def test_the_lock_is_pins_and_nothing_else() -> None:
    wrong = [line for line in LOCK if line and not line.startswith("#") and not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert not wrong, "paths, hosts and local version tags do not belong into the lock: `make lock`"


def test_one_onnxruntime_only() -> None:
    assert {"onnxruntime", "onnxruntime-gpu"} & set(PINS) == {"onnxruntime"}, "both install the same module"


def test_make_help_lists_every_target_that_the_docs_name() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {"setup", "demo", "real", "test", "test-all", "test-gpu", "lint", "types", "bench", "report"}
    assert wanted <= {line.split()[0] for line in done.stdout.splitlines()}


def test_every_file_of_the_package_that_is_no_module_is_shipped() -> None:
    package = ROOT / "src" / "mirasol"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    shipped = {path for pattern in settings["package-data"]["mirasol"] for path in package.glob(pattern)}
    files = {p for p in package.rglob("*") if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts}
    assert files == shipped


def test_no_placeholder_is_left_in_the_docs() -> None:
    assert not [p for p in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) if "@@" in p.read_text(encoding="utf-8")]
