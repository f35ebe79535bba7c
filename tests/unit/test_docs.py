"""Documents and examples name links, imports and paths that exist; test_commands.py checks their commands."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from support.commands import FENCE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "mirasol"
FOLDERS = ("ablations", "benchmarks", "docs", "examples", "flows", "recipes", "src", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
GUIDES = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs")]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

SPAN = re.compile(r"`([^`\n]+)`")
REFERENCE = re.compile(r":(?:mod|func|class|meth|attr|data):`~?(mirasol\.[\w.]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
TREE = re.compile(rf"(?:src/mirasol/)?(?:{'|'.join(p.name for p in PACKAGE.iterdir() if p.is_dir())})/\S*\.py")
PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/\S*|{TREE.pattern}")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each code block."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: dict[str, int] = {}
    for heading in HEADING.findall(prose(page)):
        text = LINK.sub("]", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    wrong = []
    for link in LINK.findall(SPAN.sub("", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def names(dotted: str) -> bool:
    """Whether a module, or a name in one, has this dotted name; fields of a class count."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, part, None)
        return True
    return False


def test_every_reference_in_a_docstring_leads_to_a_name() -> None:
    sources = [path for folder in ("src", "flows", "ablations", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    found = {name: path for path in sources for name in REFERENCE.findall(path.read_text(encoding="utf-8"))}
    assert {name: ids(path) for name, path in found.items() if not names(name)} == {}


def is_package(name: str) -> bool:
    return (ROOT / "src" / name.replace(".", "/") / "__init__.py").is_file()


def face(package: str) -> set[str]:
    """The public names of a package."""
    return set(getattr(importlib.import_module(package), "__all__", ()))


def past_the_face(code: str) -> list[str]:
    """Imports and names of mirasol in ``code`` that are neither a package nor in the ``__all__`` of one."""
    wrong = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        for name in names:
            if not re.fullmatch(r"mirasol(\.\w+)*", name) or is_package(name):
                continue
            package = name
            while not is_package(package):
                package, _, last = package.rpartition(".")
            if isinstance(node, ast.Import) or last not in face(package):
                wrong.append(name)
    return wrong


@pytest.mark.parametrize("page", [*GUIDES, *EXAMPLES], ids=ids)
def test_code_imports_faces_only(page: Path) -> None:
    if page.suffix == ".py":
        codes = [page.read_text(encoding="utf-8")]
    else:
        codes = [text for language, text in blocks(page) if language == "python"]
    assert [name for code in codes for name in past_the_face(code)] == []


def test_modules_and_private_names_are_past_the_face() -> None:
    assert past_the_face("import mirasol\nmirasol.load('b')\nimport mirasol.data") == []
    assert past_the_face("import mirasol.tokenizer") == ["mirasol.tokenizer"]
    assert past_the_face("from mirasol.runtime.model import load") == ["mirasol.runtime.model.load"]
    assert past_the_face("import mirasol\nmirasol.lode('b')") == ["mirasol.lode"]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_path_exists(page: Path) -> None:
    wrong = []
    for span in SPAN.findall(prose(page)):
        path = span.split()[0].partition("::")[0].rstrip(",")
        if "/runs/" in path:  # made by commands
            continue
        if PATH.fullmatch(path) and not any(any(base.glob(f"{path.rstrip('/')}*")) for base in (ROOT, PACKAGE)):
            wrong.append(path)
    assert wrong == []
