"""Documents and examples name links, commands, imports and paths that exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from mirasol.cli.main import app

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "mirasol"
FOLDERS = ("ablations", "benchmarks", "docs", "examples", "flows", "recipes", "src", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
GUIDES = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs")]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
WRAPPERS = ("srun", "torchrun", "nohup")  # a command behind these is a command too
PLACEHOLDER = re.compile(r"[A-Z…\[<]")  # `mirasol data import NAME`
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


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words behind `mirasol` of each command in the code blocks and code spans of a page."""
    lines = [line for language, text in blocks(page) if language != "python" for line in text.splitlines()]
    lines += [span for span in SPAN.findall(prose(page)) if span.startswith("mirasol ")]
    for line in lines:
        try:
            words = shlex.split(line.removeprefix("$ "), comments=True)
        except ValueError:  # a quote that goes on in the next line: no command of ours does
            continue
        while words:
            end = next((i for i, word in enumerate(words) if word in ("&&", "|", ";", "&")), len(words))
            command, words = words[:end], words[end + 1 :]
            quoted = [shlex.split(word) for word in command if word.startswith("mirasol ")]
            if command and command[0] in WRAPPERS and "mirasol" in command:
                command = command[command.index("mirasol") :]
            for found in [command, *quoted]:
                if found and found[0].removeprefix(".venv/bin/") == "mirasol":
                    yield found[1:]


def fault(words: list[str], commands: tuple[Any, ...] = (typer.main.get_command(app),)) -> str:
    """Why `mirasol WORDS` is no command line, or nothing. `a|b` stands for two commands, `NAME` for any of a group."""
    children = {name: child for command in commands for name, child in getattr(command, "commands", {}).items()}
    if children and words and not words[0].startswith("-"):
        names = list(children) if PLACEHOLDER.match(words[0]) else words[0].split("|")
        if unknown := [name for name in names if name not in children]:
            return f"no command {unknown[0]}"
        return fault(words[1:], tuple(children[name] for name in names))
    if any(command.context_settings.get("ignore_unknown_options") for command in commands):
        return ""  # a benchmark has more options than the command line knows
    known = {name for command in commands for option in command.params for name in option.opts} | {"--help", "-h"}
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return ", ".join(f"no option {option}" for option in options if option not in known)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_command_line_names_a_command_and_its_options(page: Path) -> None:
    wrong = [(" ".join(words), why) for words in command_lines(page) if (why := fault(words))]
    assert wrong == []


def test_command_lines_are_found() -> None:
    assert ["run", "--workspace", "runs/workspaces/mine"] in list(command_lines(ROOT / "docs" / "operations.md"))
    assert fault(["data", "look", "--spilt", "test"]) == "no option --spilt"
    assert fault(["data", "loook"]) == "no command loook"
    assert fault(["data", "look|chekc"]) == "no command chekc"
    assert fault(["data", "import", "NAME", "--link", "symlink"]) == ""


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
