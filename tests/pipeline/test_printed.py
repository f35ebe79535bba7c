"""Every printed command is run, in folders like those that it names, or by the test that printed.yaml names."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import ROOT, dvc_parser, program
from support.inprocess import Done, dvc, mirasol, python
from support.newcomer import add_predictions, add_releases, write_home, write_inbox
from support.printed import printed
from support.scratch import LIMIT, commit, start_git

from mirasol.pipeline.params import proposal

TABLE: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "printed.yaml").read_text(encoding="utf-8"))


def entries(place: str) -> list[Any]:
    """The commands of a part of the table: as printed, and as run."""
    pairs = [(entry, entry) if isinstance(entry, str) else next(iter(entry.items())) for entry in TABLE[place]]
    return [pytest.param(run, id=line) for line, run in pairs]


def lines(place: str) -> list[str]:
    """The printed commands of a part of the table."""
    part = TABLE[place]
    if isinstance(part, dict):
        return [line for found in part.values() for line in found]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in part]


LISTED = Counter(line for place in TABLE for line in lines(place))
INTERRUPTED = 130  # the exit status after Ctrl-C, as of a shell
ANSWERED = re.compile(r"answer \d")
BARE = re.compile(r"(mirasol|dvc)( [a-z][a-z-]*)+")
BARES = [line for line in printed() if line not in LISTED and BARE.fullmatch(line)]
MAKE = [line for line in printed() if line.startswith("make ")]


def run(command: str, folder: Path) -> Done:
    """Run a command line in ``folder`` as a shell would: `~`, `&&` and `>` mean what they mean there."""
    done = Done(0, "", "")
    for part in command.split(" && "):
        name, *words = shlex.split(part)
        words, target = (words[:-2], words[-1]) if words[-2:-1] == [">"] else (words, "")
        words = [str(Path(word).expanduser()) if word.startswith("~/") else word for word in words]
        done = {"mirasol": mirasol, "python": python, "dvc": dvc}[name](words, folder)
        assert done.status == 0, f"{part}: exit status {done.status}\n{done.out}\n{done.err}"
        if target:
            path = Path(target).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(done.out, encoding="utf-8")
    return done


@functools.cache
def once(command: str, folder: Path) -> Done:
    """As :func:`run`, for commands that stand for several printed ones."""
    return run(command, folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that `~` means."""
    with pytest.MonkeyPatch.context() as patch:
        folder = write_home(tmp_path_factory.mktemp("home"))
        patch.setenv("HOME", str(folder))
        patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # as `activate` does
        patch.setenv("CI", "true")  # `mirasol try` then ends after its answers
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
        yield folder


@pytest.fixture(scope="module")
def project(trained: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has run, with the files that the examples name."""
    root = Path(shutil.copytree(trained, tmp_path_factory.mktemp("printed") / "project"))
    shutil.copy(root / "data/media/test/000/test-00000.mp4", root / "clip.mp4")
    for name in ("clips", "videos", "recordings"):
        (root / name).mkdir()
        shutil.copy(root / "clip.mp4", root / name / "a.mp4")
    shutil.copy(root / "params.yaml", root / "larger.yaml")
    start_git(root)
    add_predictions(root)
    add_releases(root)
    for name in ("a", "b"):
        run(f"mirasol score msrvtt-qa runs/msrvtt.jsonl --annotations ~/msrvtt-qa --out runs/{name}", root)
        for number in (1, 2, 3):
            shutil.copy(root / f"runs/{name}/predictions.jsonl", root / f"{name}{number}.jsonl")
    return root


@pytest.fixture(scope="module")
def versioned(trained: Path, home: Path, prefect: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project that has run, under git and DVC; training in its workspaces is short."""
    root = Path(shutil.copytree(trained, tmp_path_factory.mktemp("versioned") / "project"))
    start_git(root)
    shutil.copy(root / "params.yaml", root / "mine.yaml")
    run("dvc add data && dvc commit --force", root)
    commit(root, "Results")
    (root / "weights/vit-l").mkdir(parents=True)
    (root / "weights/vit-l/weights.safetensors").write_bytes(b"weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposal, "PRESENTED", (32, 32))
        for name, value in prefect.env.items():
            patch.setenv(name, value)
        yield root


def test_each_printed_command_is_in_one_class() -> None:
    assert [line for line, count in LISTED.items() if count > 1] == []
    unknown = set(printed()) - LISTED.keys() - set(BARES) - set(MAKE)
    assert {line: sorted(printed()[line]) for line in unknown if program(line.split()[0])} == {}


def test_the_table_names_no_command_that_is_printed_nowhere() -> None:
    assert set(LISTED) - set(printed()) == set()


@pytest.mark.parametrize("test", TABLE["elsewhere"])
def test_the_test_that_runs_a_command_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", BARES)
def test_the_name_of_a_command_has_help(command: str) -> None:
    name, *words = command.split()
    if name == "mirasol":
        assert mirasol([*words, "--help"], ROOT).status == 0
    else:
        with pytest.raises(SystemExit) as stop:
            dvc_parser().parse_args([*words, "--help"])
        assert stop.value.code == 0


@pytest.mark.parametrize("command", MAKE)
def test_make_would_run(command: str) -> None:
    words = [*shlex.split(command.replace("…", "X")), "-n"]
    for name, value in (("PYTHON", sys.executable), ("TORCH", "cpu")):  # else make looks for them
        if name not in command:
            words.append(f"{name}={value}")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", entries("project"))
def test_in_a_project_that_has_run(command: str, project: Path) -> None:
    words = shlex.split(command)
    scored = words[1:4:2] == ["score", "predictions.jsonl"]  # a file of that name for each benchmark
    once(command, project / "scores" / words[2] if scored else project)


@pytest.mark.parametrize("command", entries("empty"))
def test_in_a_folder_without_data(command: str, home: Path, tmp_path: Path) -> None:
    run(command, write_inbox(tmp_path, home))


@pytest.mark.parametrize("command", entries("served"))
def test_until_it_is_ended(command: str, project: Path) -> None:
    words = [str(Path(word).expanduser()) if word.startswith("~/") else word for word in shlex.split(command)]
    line = [sys.executable, "-m", *words]
    with subprocess.Popen(line, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as started:
        assert started.stdout
        said = []
        for text in started.stdout:
            said.append(text)
            if address := re.search(r"http://\S+", text):
                with urllib.request.urlopen(address[0], timeout=LIMIT) as page:
                    assert page.status == 200
            if address or ANSWERED.search(text):
                break
        started.send_signal(signal.SIGINT)
        rest = started.stdout.read()
        assert started.wait(LIMIT) in (0, INTERRUPTED), "".join([*said, rest])
        assert "Traceback" not in rest


@pytest.mark.slow
@pytest.mark.parametrize("command", entries("slow"))
def test_under_git_and_dvc(command: str, versioned: Path) -> None:
    run(command, versioned)
