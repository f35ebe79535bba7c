"""The lock and pyproject.toml agree, and neither names a machine."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mirasol.cli.doctor import PYTHONS
from mirasol.core.errors import DISTRIBUTION, NOT_IN_SETUP, install

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


def test_extras_name_ranges_only() -> None:
    wanted = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    assert [r for r in wanted if "==" in r] == []


def test_every_place_names_the_same_pythons() -> None:
    versions = [f"3.{minor}" for minor in range(PYTHONS[0][1], PYTHONS[1][1] + 1)]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    classified = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith("Programming Language")]
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    assert classified == versions
    assert tests["jobs"]["test"]["strategy"]["matrix"]["python"] == versions
    assert PROJECT["requires-python"] == f">={versions[0]},<3.{PYTHONS[1][1] + 1}"
    assert f"FITS := import sys; sys.exit(not {PYTHONS[0]} <= sys.version_info[:2] <= {PYTHONS[1]})" in makefile
    assert f"for p in {' '.join(f'python{v}' for v in versions)} python3;" in makefile
    assert f"Python {versions[0]} to {versions[-1]}" in makefile
    assert f"Python {versions[0]} to {versions[-1]}" in readme


def test_the_distribution_has_the_name_that_errors_tell() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    assert install("wandb") == f"`pip install '{DISTRIBUTION}[wandb]'`"


def test_make_setup_brings_the_extras_that_errors_say_it_brings() -> None:
    assert set(PROJECT["optional-dependencies"]) - set(INSTALLED) == set(NOT_IN_SETUP)


def test_every_extra_that_an_error_names_exists() -> None:
    calls = [
        node.args[0].value
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "install"
        and node.args and isinstance(node.args[0], ast.Constant)
    ]  # fmt: skip
    assert len(calls) > 4
    assert set(calls) <= set(PROJECT["optional-dependencies"])


def test_no_file_tells_to_install_the_other_mirasol() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    other = re.compile(r"pip install (-\S+ )*['\"]?mirasol(?!-av)\b")
    here = str(Path(__file__).relative_to(ROOT))
    names = [
        n for n in listed.splitlines() if Path(n).suffix in (".py", ".md", ".toml", ".yaml", ".yml", ".html", ".sh")
    ]
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in (*names, "Makefile", "Dockerfile")}
    wrong = [name for name, text in texts.items() if other.search(text)]
    assert [name for name in wrong if name not in (here, "tests/unit/test_commands.py")] == []
