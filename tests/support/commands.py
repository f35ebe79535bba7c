"""Command lines in documents, docstrings and messages, and why one of them could not be run.

A command that a reader can copy is checked against the program itself: `mirasol` and its options, the targets and
variables of a Makefile, Python modules and files with their options, DVC's parser, and the extras that pip is given.
"""

from __future__ import annotations

import argparse
import ast
import functools
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from mirasol.cli.main import app
from mirasol.core.errors import DISTRIBUTION

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(`+)(?!`)([^`]+)\1")
EXAMPLE = re.compile(r"^ *Examples?: +(.*)$", re.MULTILINE)
WRAPPERS = ("srun", "torchrun", "nohup", "exec", "sudo", "time")  # a command behind these is a command too
PLACEHOLDER = re.compile(r"[A-Z…\[<{$]")  # `mirasol data import NAME`
VARIABLE = re.compile(r"([A-Za-z_]+)=")
ENDS = ("&&", "|", "||", ";", "&")
HOLE = "{}"  # a value of an f-string


def in_document(text: str) -> Iterator[str]:
    """Lines that may hold commands: those of code blocks, and code spans."""
    for language, block in FENCE.findall(text):
        if language != "python":
            yield from block.replace("\\\n", " ").splitlines()
    yield from in_message(FENCE.sub("", text))


def in_message(text: str) -> Iterator[str]:
    """Code spans of a text, and the line behind `Example:`."""
    yield from (" ".join(span.split()) for _, span in SPAN.findall(text))
    yield from EXAMPLE.findall(text)


def in_source(code: str) -> Iterator[str]:
    """Code spans, examples and whole commands in the strings of a program; `{}` stands for the value in an f-string."""
    tree = ast.parse(code)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(v.value) if isinstance(v, ast.Constant) else HOLE for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            text = node.value
        else:
            continue
        yield from in_message(text)
        if re.match(r"(make|dvc|python|pip install|git) \S", text) and "\n" not in text:
            yield text


def commands(line: str) -> Iterator[list[str]]:
    """The words of each command in a line that starts with one of :data:`PROGRAMS`."""
    try:
        words = shlex.split(line.strip().removeprefix("$ "), comments=True)
    except ValueError:  # a quote that goes on in the next line: no command of ours does
        return
    while words:
        end = next((i for i, word in enumerate(words) if word in ENDS or word.endswith(";")), len(words))
        command, words = (
            [*words[:end], *(w.rstrip(";") for w in words[end : end + 1] if w not in ENDS)],
            words[end + 1 :],
        )
        for quoted in [word for word in command if word.startswith(tuple(f"{name} " for name in PROGRAMS))]:
            yield from commands(quoted)
        while command and VARIABLE.match(command[0]):
            command = command[1:]
        if command and command[0] in WRAPPERS:
            command = command[next((i for i, word in enumerate(command) if program(word)), len(command)) :]
        if len(command) > 1 and program(command[0]):
            yield [program(command[0]), *command[1:]]


def program(word: str) -> str:
    """The name of one of :data:`PROGRAMS` without its folder and version, or nothing."""
    name = re.sub(r"^python3(\.\d+)?$", "python", word.rpartition("/")[2])
    return name if name in PROGRAMS and not word.startswith("/path") else ""


def fault(command: list[str]) -> str:
    """Why this command cannot be run, or nothing."""
    return PROGRAMS[command[0]](command[1:])


def mirasol(words: list[str], levels: tuple[Any, ...] = ()) -> str:
    """`a|b` stands for two commands, `NAME` for any of a group."""
    levels = levels or (_mirasol(),)
    children = {name: child for level in levels for name, child in getattr(level, "commands", {}).items()}
    if children and words and not words[0].startswith("-"):
        names = list(children) if PLACEHOLDER.match(words[0]) else words[0].split("|")
        if unknown := [name for name in names if name not in children]:
            return f"no command {unknown[0]}"
        return mirasol(words[1:], tuple(children[name] for name in names))
    if any(level.context_settings.get("ignore_unknown_options") for level in levels):
        return ""  # a benchmark has more options than the command line knows
    known = {name for level in levels for option in level.params for name in option.opts + option.secondary_opts}
    return _unknown(words, known | {"--help", "-h"}) or min((_surplus(words, level) for level in levels), key=len)


def _surplus(words: list[str], level: Any) -> str:
    """The arguments that a command cannot take: sum of ``nargs``, -1 for any number."""
    valued = {name for option in level.params if not getattr(option, "is_flag", True) for name in option.opts}
    nargs = [parameter.nargs for parameter in level.params if parameter.param_type_name == "argument"]
    given = [w for i, w in enumerate(words) if not w.startswith("-") and (i == 0 or words[i - 1] not in valued)]
    if -1 in nargs or len(given) <= sum(nargs) or "--" in words or any(w[:1] in "|>…" for w in given):
        return ""
    return f"{len(given)} arguments, expected at most {sum(nargs)}: {given}"


@functools.cache
def _mirasol() -> Any:
    return typer.main.get_command(app)


def _unknown(words: list[str], known: set[str]) -> str:
    if "--" in words:
        words = words[: words.index("--")]
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return ", ".join(f"no option {option}" for option in options if option not in known)


def make(words: list[str]) -> str:
    """Targets and variables of the Makefile in the project's folder, or in that behind `-C`."""
    folder = ROOT / words[words.index("-C") + 1] if "-C" in words else ROOT
    text = (folder / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", text, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]\w*) *[?:]?=", text, re.MULTILINE))
    words = [word for i, word in enumerate(words) if not word.startswith("-") and words[i - 1 : i] != ["-C"]]
    for word in words:
        variable = VARIABLE.match(word)
        if variable and variable[1] not in variables:
            return f"no variable {variable[1]}"
        if not variable and re.fullmatch(r"[\w-]+", word) and not PLACEHOLDER.match(word) and word not in targets:
            return f"no target {word}"
    return ""


def python(words: list[str]) -> str:
    """A module of this project or a file of it, and options that its source names."""
    module = words[1] if words[0] == "-m" and len(words) > 1 else ""
    if (words[0].startswith("-") and not module) or PLACEHOLDER.match(module or words[0]):
        return ""
    if module.partition(".")[0] in ("pip", "venv", "pytest", "http", "mkdocs"):
        return pip(words[2:]) if module == "pip" else ""
    if module == "mirasol":
        return mirasol(words[2:])
    name = module.replace(".", "/") if module else words[0]
    places = [ROOT / name, ROOT / "src" / name]
    files = [p for place in places for p in (place.with_suffix(".py"), place / "__main__.py") if p.is_file()]
    if not files:
        return f"no module {module}" if module else f"no file {name}"
    known = set(re.findall(r"--?[a-z][\w-]*", files[0].read_text(encoding="utf-8")))
    if "arguments(" in files[0].read_text(encoding="utf-8"):  # options that benchmarks share
        known |= set(re.findall(r"--[a-z][\w-]*", (ROOT / "benchmarks" / "common.py").read_text(encoding="utf-8")))
    return _unknown(words[2 if module else 1 :], known | {"--help", "-h"})


def dvc(words: list[str]) -> str:
    """Commands and options of DVC's own parser."""
    parser = dvc_parser()
    known = set(parser._option_string_actions)
    while words and not words[0].startswith("-") and not PLACEHOLDER.match(words[0]):
        groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not groups:
            break
        if words[0] not in groups[0].choices:
            return f"no command {words[0]}"
        parser, words = groups[0].choices[words[0]], words[1:]
        known |= set(parser._option_string_actions)
    return _unknown(words, known)


@functools.cache
def dvc_parser() -> argparse.ArgumentParser:
    from dvc.cli.parser import get_main_parser

    parser: argparse.ArgumentParser = get_main_parser()
    return parser


def pip(words: list[str]) -> str:
    """Extras and the distribution's name: PyPI's mirasol is another project."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in words:
        name, _, asked = word.partition("[")
        if name == "mirasol" and words[0] == "install":
            return f"mirasol is another project, expected {DISTRIBUTION}"
        if name not in (".", DISTRIBUTION):
            continue
        for extra in filter(None, asked.rstrip("]").split(",")):
            if extra not in extras and not PLACEHOLDER.match(extra):
                return f"no extra {extra}"
    return ""


PROGRAMS: dict[str, Callable[[list[str]], str]] = {
    "mirasol": mirasol,
    "make": make,
    "python": python,
    "dvc": dvc,
    "pip": pip,
}
