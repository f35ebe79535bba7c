"""Imports go one way, and the rooms of a machine without PyTorch do not import it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "mirasol"
# From top to bottom: a room may import itself and what stands below it.
ORDER = (
    "flows", "cli", "ops", "stages", "params", "evaluation", "training", "export", "serve", "runtime",
    "data", "model", "core",
)  # fmt: skip
# What a room may import of its own project where that is narrower than "all below".
NARROW = {
    "flows": {"flows", "ops", "core"},
    "serve": {"serve", "runtime", "data", "core"},
    "model": {"model", "core"},
    "core": {"core"},
}
WITHOUT_TORCH = (
    "mirasol.cli.main",
    *(f"mirasol.data.{name}" for name in ("spec", "manifest", "decode", "features", "tokenizer")),
    *(f"mirasol.{room}.config" for room in ("model", "training", "evaluation", "export")),
    "mirasol.pipeline.params.load",
    *(f"mirasol.evaluation.{name}" for name in ("compare", "paired", "score", "wordnet", "protocols.table")),
    *sorted(
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for room in ("runtime", "serve")
        for path in (SOURCE / room).rglob("*.py")
        if path.name != "__init__.py" and "tensorrt" not in path.name
    ),
)


def room_of(path: Path) -> str:
    """The room that a source file belongs to."""
    if path.is_relative_to(ROOT / "flows"):
        return "flows"
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return "cli" if first == "commands" else first


def imported_rooms(path: Path) -> set[str]:
    """Rooms of this project that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            module = node.module or ""
            names |= {f"mirasol.{alias.name}" for alias in node.names} if module == "mirasol" else {module}
    rooms = {
        name.split(".")[0 if name.startswith("flows") else 1]
        for name in names
        if name.startswith(("mirasol.", "flows"))
    }
    return {"cli" if room == "commands" else room for room in rooms}


FILES = [*SOURCE.rglob("*.py"), *(ROOT / "flows").rglob("*.py")]


@pytest.mark.parametrize(
    "path", [f for f in FILES if f != SOURCE / "__init__.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in ORDER, f"{room} is no room: add it to ORDER or move the file"
    allowed = NARROW.get(room, set(ORDER[ORDER.index(room) :]))
    wrong = (imported_rooms(path) & set(ORDER)) - allowed
    assert not wrong, f"{path.relative_to(ROOT)} is in {room} and imports {', '.join(sorted(wrong))}, which stand above"


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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_holds_one_room(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{lines} lines: does it hold two rooms?"


def test_stage_files_are_short() -> None:
    stages = [p for p in (SOURCE / "stages").glob("*.py") if p.stem not in ("run", "__init__")]
    long = {p.name: n for p in stages if (n := len(p.read_text(encoding="utf-8").splitlines())) > 40}
    assert not long, "a stage is parameters, one call of a room, metrics"
