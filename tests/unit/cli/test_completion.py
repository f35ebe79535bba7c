"""The completion scripts offer what the commands take, in the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mirasol.cli.main import app

ASK = """
source {script}
complete -p mirasol >/dev/null
COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_mirasol
echo "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        (folder / shell).write_text(CliRunner().invoke(app, ["completion", shell]).stdout, encoding="utf-8")
    return folder


def run(shell: str, program: str) -> list[str]:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run([path, *flags, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mirasol ''", {"answer", "data", "doctor", "run"}),
        ("mirasol da", {"data"}),
        ("mirasol data ''", {"look", "check", "import"}),
        ("mirasol data look --sp", {"--split"}),
        ("mirasol completion ''", {"bash", "zsh", "fish"}),
        ("mirasol --", {"--version", "--help"}),
        ("mirasol answer ''", set()),
    ],
)
def test_bash_completes(scripts: Path, words: str, expected: set[str]) -> None:
    found = set(run("bash", ASK.format(script=scripts / "bash", words=words)))
    assert found >= expected and bool(found) == bool(expected)


def test_zsh_takes_the_script(scripts: Path, tmp_path: Path) -> None:
    program = f"HOME={tmp_path} ZDOTDIR={tmp_path}; cd {tmp_path}; source {scripts / 'zsh'}; echo $_comps[mirasol]"
    assert run("zsh", program) == ["_bash_complete", "-o", "default", "-F", "_mirasol"]


def test_fish_completes(scripts: Path) -> None:
    ask = "source {}; complete -C '{}'"
    assert "data" in run("fish", ask.format(scripts / "fish", "mirasol da"))
    assert "--split" in run("fish", ask.format(scripts / "fish", "mirasol data look --sp"))


def test_python_m_mirasol_is_mirasol() -> None:
    done = subprocess.run([sys.executable, "-m", "mirasol", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mirasol ")
