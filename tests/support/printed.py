"""Every command that documents, docstrings, messages, settings and pages print, and where."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from support.commands import ROOT, commands, in_document, in_message, in_source

FOLDERS = ("ablations", "benchmarks", "docs", "examples", "flows", "recipes", "src", "tests", ".github")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
PACKAGES = sorted(path for path in (ROOT / "src" / "mirasol").iterdir() if path.is_dir() and path.name[0] != "_")
SOURCES = [*PACKAGES, *(ROOT / name for name in ("ablations", "benchmarks", "examples", "flows"))]
SETTINGS = sorted([*ROOT.glob("*.yaml"), *(ROOT / "recipes").glob("*.yaml")])
HTML = sorted((ROOT / "src").rglob("*.html*"))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def in_settings(text: str) -> Iterator[str]:
    """Lines of a settings file that may hold commands."""
    yield from in_message(text)
    yield from re.findall(r"^ *(?:- )?(?:cmd|run): (.*)$", text, re.MULTILINE)


def in_page(text: str) -> Iterator[str]:
    """Lines of an HTML page that may hold commands."""
    yield from in_message(text)
    yield from re.findall(r"<code>([^<]*)</code>", text)


@functools.cache
def printed() -> dict[str, set[str]]:
    """Each printed command as one line, and the files that print it."""
    modules = [file for folder in SOURCES for file in sorted(folder.rglob("*.py"))]
    readers: list[tuple[list[Path], Callable[[str], Iterator[str]]]] = [
        (PAGES, in_document),
        (modules, in_source),
        (SETTINGS, in_settings),
        (HTML, in_page),
    ]
    found: dict[str, set[str]] = {}
    for files, reader in readers:
        for file in files:
            for line in reader(read(file)):
                for command in commands(line):
                    found.setdefault(one_line(command), set()).add(str(file.relative_to(ROOT)))
    return found


def one_line(words: list[str]) -> str:
    """``words`` as a line that ``shlex.split`` takes apart again."""
    return " ".join(f"'{word}'" if re.search(r"[\s\"#]", word) or not word else word for word in words)
