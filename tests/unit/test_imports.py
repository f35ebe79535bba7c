"""Imports go one way, and packages for machines without PyTorch do not import it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "mirasol"
# From top to bottom: a package may import itself and those below it.
ORDER = (
    "flows", "__main__", "cli", "pipeline", "serve", "evaluation", "export", "training", "runtime", "tasks", "data",
    "model", "tokenizer", "media", "core",
)  # fmt: skip
# Research and measurements import the package; nothing imports them.
OUTSIDE = ("ablations", "benchmarks")
# Packages that may import less than all below.
NARROW = {
    "flows": {"flows", "cli", "pipeline", "core"},
    "serve": {"serve", "runtime", "media", "core"},
    "runtime": {"runtime", "data", "tokenizer", "media", "core"},
    "tasks": {"tasks", "data", "media", "core"},
    "model": {"model", "core"},
    "media": {"media", "core"},
    "core": {"core"},
}
WITHOUT_TORCH = (
    "mirasol.cli.main",
    "mirasol.tokenizer",
    "mirasol.data.manifest",
    *(f"mirasol.{package}.config" for package in ("model", "training", "tasks.scoring", "export")),
    "mirasol.pipeline.params.load",
    "mirasol.pipeline.stages",
    *sorted(
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for package in ("media", "runtime", "serve", "tasks")
        for path in (SOURCE / package).rglob("*.py")
        if path.name != "__init__.py" and "tensorrt" not in path.name
    ),
)


def package_of(path: Path) -> str:
    """The top-level package of a source file."""
    if path.is_relative_to(ROOT / "flows"):
        return "flows"
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_packages(path: Path) -> set[str]:
    """Top-level packages of this project that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            module = node.module or ""
            names |= {f"mirasol.{alias.name}" for alias in node.names} if module == "mirasol" else {module}
    tops = [name.split(".") for name in names if name.startswith(("mirasol.", "flows", *OUTSIDE))]
    return {parts[1] if parts[0] == "mirasol" else parts[0] for parts in tops}


FILES = [*SOURCE.rglob("*.py"), *(ROOT / "flows").rglob("*.py")]


@pytest.mark.parametrize(
    "path", [f for f in FILES if f != SOURCE / "__init__.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_go_one_way(path: Path) -> None:
    package = package_of(path)
    assert package in ORDER, f"{package} is not in ORDER: add it, or move the file"
    allowed = NARROW.get(package, set(ORDER[ORDER.index(package) :]))
    wrong = (imported_packages(path) & {*ORDER, *OUTSIDE}) - allowed
    assert not wrong, f"{path.relative_to(ROOT)} is in {package} and must not import {', '.join(sorted(wrong))}"


def modules_after(code: str) -> set[str]:
    """Names in ``sys.modules`` after ``code`` ran in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_else() -> None:
    extra = modules_after("import mirasol") - modules_after("")
    assert {name for name in extra if name.split(".")[0] != "__future__"} == {"mirasol"}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_module_works_without_torch(module: str) -> None:
    found = modules_after(f"import {module}")
    assert "torch" not in found, f"{module} imports torch"


def test_importing_the_command_line_imports_no_heavy_package() -> None:
    heavy = {"torch", "numpy", "av", "onnxruntime", "matplotlib", "prefect", "dvc", "pytorch_lightning"}
    assert not heavy & modules_after("import mirasol.cli.main"), "import inside the command that needs it"


def test_reading_a_shard_imports_ten_files_at_most() -> None:
    found = {name for name in modules_after("import mirasol.data.loading.reader") if name.split(".")[0] == "mirasol"}
    assert len(found) <= 10, sorted(found)


def test_decoding_clips_of_shards_imports_nothing_that_makes_them() -> None:
    found = {name for name in modules_after("import mirasol.data.loading.dataset") if name.startswith("mirasol.")}
    reading = {f"mirasol.data.shards.{name}" for name in ("chunk_codec", "format")}
    assert {name for name in found if name.startswith("mirasol.data.shards.")} == reading
    files = {name for name in found if not (SOURCE.parent / name.replace(".", "/")).is_dir()}
    assert len(files) <= 15, sorted(files)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_holds_one_subject(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{lines} lines: does it hold two subjects?"


PACKAGES = sorted(path.parent for path in SOURCE.rglob("__init__.py"))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_package_has_a_face_with_a_docstring(package: Path) -> None:
    name = ".".join(package.relative_to(SOURCE.parent).parts)
    face = importlib.import_module(name)
    assert face.__doc__ and face.__all__
    assert set(face.__all__) <= set(dir(face)), "dir() and completion must list the names"
    assert all(getattr(face, public) is not None for public in face.__all__)
    assert not set(face.__all__) & {path.stem for path in package.iterdir()}, "a module would hide the name"
    with pytest.raises(AttributeError, match="nonesuch"):
        getattr(face, "nonesuch")  # noqa: B009
