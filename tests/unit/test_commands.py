"""Every command in documents, docstrings, messages, settings and pages can be run (support.commands)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from support.commands import ROOT, commands, fault, in_document, in_source
from support.printed import HTML, PAGES, SETTINGS, SOURCES, in_page, in_settings, read

BIN = re.compile(r"\$\(BIN\)/((?:mirasol|python) [^;|&)\n]*)")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def faults(lines: Iterable[str]) -> list[str]:
    found = [(command, fault(command)) for line in lines for command in commands(line)]
    return [f"{' '.join(command)}: {why}" for command, why in found if why]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_every_command_in_a_document_can_be_run(page: Path) -> None:
    assert faults(in_document(read(page))) == []


@pytest.mark.parametrize("folder", SOURCES, ids=ids)
def test_every_command_in_a_docstring_or_a_message_can_be_run(folder: Path) -> None:
    wrong = {ids(file): faults(in_source(read(file))) for file in sorted(folder.rglob("*.py"))}
    assert {file: found for file, found in wrong.items() if found} == {}


@pytest.mark.parametrize("file", SETTINGS, ids=ids)
def test_every_command_in_a_settings_file_can_be_run(file: Path) -> None:
    assert faults(in_settings(read(file))) == []


@pytest.mark.parametrize("file", HTML, ids=ids)
def test_every_command_in_a_page_can_be_run(file: Path) -> None:
    assert faults(in_page(read(file))) == []


def test_every_command_of_the_makefile_can_be_run() -> None:
    text = re.sub(r"\$\((\d|CURDIR)\)", "X", read(ROOT / "Makefile").replace("\\\n", " "))
    text = re.sub(r"\$\(if [^,]*,([^()]*)\)", r"\1", text)
    found = [line.replace('"', "") for line in BIN.findall(text)]
    assert any(line.startswith("mirasol workspace X --data X --params X --adapter X") for line in found)
    assert len(found) > 5
    assert faults(found) == []


def test_commands_are_found_in_a_document() -> None:
    page = in_document(read(ROOT / "docs" / "operations.md"))
    found = [command for line in page for command in commands(line)]
    assert ["mirasol", "run", "--workspace", "runs/workspaces/mine"] in found


def test_commands_are_found_in_a_program() -> None:
    code = "'Example:  mirasol doctor'\nf'''run `make setup` in {x}, ``dvc add {y}``'''\n'make test'"
    found = [" ".join(command) for line in in_source(code) for command in commands(line)]
    assert sorted(found) == ["dvc add {}", "make setup", "make test", "mirasol doctor"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("mirasol data look --spilt test", "no option --spilt"),
        ("mirasol data loook", "no command loook"),
        ("mirasol data look|chekc", "no command chekc"),
        ("mirasol data import NAME --link symlink", ""),
        ("mirasol doctor now", "1 arguments, expected at most 0: ['now']"),
        ("srun --nodes 2 mirasol stage finetune --fast", "no option --fast"),
        ("PREFECT_HOME=x python -m mirasol dctor", "no command dctor"),
        ("make tets", "no target tets"),
        ("make demo DATAS=x", "no variable DATAS"),
        ("make -C examples all", ""),
        (".venv/bin/python -m flows.pipelines", "no module flows.pipelines"),
        ("python3.11 -m flows.pipeline --pussh", "no option --pussh"),
        ("python benchmarks/nothing.py", "no file benchmarks/nothing.py"),
        ("dvc exp shwo", "no command shwo"),
        ("dvc gc --workspaces", "no option --workspaces"),
        ("pip install 'mirasol-av[runtimes]'", "no extra runtimes"),
        ("pip install mirasol", "mirasol is another project, expected mirasol-av"),
        ("pip install 'mirasol[runtime]'", "mirasol is another project, expected mirasol-av"),
    ],
)
def test_a_command_that_cannot_be_run_is_told(line: str, why: str) -> None:
    (found,) = commands(line)
    assert fault(found) == why
