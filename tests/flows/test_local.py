"""The flows from the command line: on their own server, and on a given one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.scratch import PARAMS, commit, git, hanging_pids, make_project, ran, run_dvc, tell, wait_gone

from mirasol.pipeline.dvc import dvc


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose stages have all run, committed; not to be changed."""
    root = make_project(tmp_path_factory.mktemp("local") / "finished")
    dvc.repro(root=root, on_line=lambda _: None)
    commit(root, "Results")
    ran(root)
    return root


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    root = tmp_path / "project"
    shutil.copytree(finished, root, symlinks=True)
    return root


def _children(pid: int) -> set[int]:
    """All processes below ``pid``."""
    found = {pid}
    for _ in range(8):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                if parent in found:
                    found.add(int(entry.name))
    return found - {pid}


def test_ending_the_flow_leaves_no_process(prefect: Any, project: Path) -> None:
    (project / "params.yaml").write_text(PARAMS.replace("score: 0.9", "score: 0.8"))
    hang = tell(project, "hang-second")
    env = {key: value for key, value in prefect.env.items() if key != "PREFECT_API_URL"}
    env["PREFECT_HOME"] = str(Path(prefect.env["PREFECT_HOME"], "local"))
    command = [sys.executable, "-m", "flows.pipeline", "--no-report"]
    with subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as flow:
        hanging_pids(project)
        below = _children(flow.pid)
        os.kill(flow.pid, signal.SIGTERM)
        said = flow.stdout.read().decode() if flow.stdout else ""
    assert len(below) >= 5, "the server, DVC, the stage, its worker and their supervisors"
    wait_gone(sorted(below))
    assert "[2/3 second] 1/2 clips" in said
    hang.unlink()
    ran(project)
    assert dvc.repro("second", root=project, on_line=lambda _: None) == "ran"


def test_pipeline_runs_what_is_stale_and_shows_it(prefect: Any, project: Path) -> None:
    (project / "params.yaml").write_text(PARAMS.replace("score: 0.9", "score: 0.7"))
    (project / "data" / "3.txt").write_text("clip 3\n")
    tell(project, "kill-second")
    said = prefect.command("flows.pipeline", "--no-report", "--retry-delay", "0.1", cwd=project)
    assert ran(project) == ["first", "second", "second", "third"], "a killed stage is tried once more"
    assert "stages   4 ran, in 0:" in said, "data that was changed by hand gets its version"
    assert "[3/3 third] 2/2 clips" in said and "[data.dvc] done in 0:" in said
    assert "[second] stage `second` was ended by signal 9 (often: out of memory); it is tried again" in said
    chatter = ("Finished in state", "Beginning flow run", "Running stage", "> python3", "deleted", "Verifying")
    assert [word for word in chatter if word in said] == []
    again = prefect.command("flows.pipeline", "--no-report", cwd=project)
    assert ran(project) == []
    assert "stages   3 up to date, in 0:" in again


ONCE = {  # mistakes and their one error
    "a stage that is none": (
        ("flows.pipeline", "secnd"),
        "error: target `secnd` is no stage of dvc.yaml (first, second, third); did you mean `second`?",
    ),
    "a stage that fails": (
        ("flows.pipeline", "--no-report"),
        "error: stage `second` failed: clip 7 of data/manifest.jsonl is no video\n"
        "Its last outputs come back with `dvc checkout build/second && git checkout reports/second.json`",
    ),
    "a parameter that is none": (
        ("flows.experiment", "low", "second.scor=0.2"),
        "error: `second.scor=0.2`: params.yaml states no key `second.scor`; did you mean `second.score`? "
        "`+second.scor=0.2` adds a key",
    ),
}


@pytest.mark.parametrize("mistake", ONCE)
def test_a_mistake_is_one_error_without_a_traceback(prefect: Any, project: Path, mistake: str) -> None:
    arguments, error = ONCE[mistake]
    (project / "params.yaml").write_text(PARAMS.replace("score: 0.9", "score: 0.7"))
    tell(project, "fail-second")
    said = prefect.command(*arguments, cwd=project, check=False)
    assert f"\n{said.rstrip()}".endswith(f"\n{error}")
    assert said.count(error.removeprefix("error: ")) == 1
    assert [word for word in ("Traceback", "ERROR", "StageError", "encountered") if word in said] == []


def test_ingest_gives_new_data_a_version(prefect: Any, project: Path, tmp_path: Path) -> None:
    media = tmp_path / "incoming"
    media.mkdir()
    rows = ["media,answers,split"]
    for number, split in enumerate(("train", "val", "test")):
        (media / f"{number}.mp4").write_text(f"not really video {number}\n")
        rows.append(f"{number}.mp4,yes,{split}")
    (media / "annotations.csv").write_text("\n".join(rows) + "\n")
    run_dvc(project, "remote", "add", "--default", "store", str(tmp_path / "store"))
    before = (project / "data.dvc").read_text()
    arguments = ("--media", str(media), "--annotations", str(media / "annotations.csv"), "--push")
    prefect.command("flows.ingest", *arguments, cwd=project)
    assert (project / "data.dvc").read_text() != before
    assert (project / "data" / "manifest.jsonl").read_text().count("\n") == 3
    assert any((tmp_path / "store").rglob("*.dir"))
    assert set(dvc.status(project)) == {"first"}


def test_loop_does_nothing_without_new_files_and_while_they_arrive(prefect: Any, project: Path) -> None:
    incoming = project / "runs" / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    said = [prefect.command("flows.loop", "runs/incoming", cwd=project).splitlines()[-1]]
    (incoming / "annotations.csv").write_text("media,answers\n1.mp4,yes\n")
    said.append(prefect.command("flows.loop", "runs/incoming", "--settle", "300", cwd=project).splitlines()[-1])
    assert said[0] == "nothing to import in runs/incoming: 0 files, no annotations.csv or annotations.jsonl"
    assert said[1].startswith("files are arriving in runs/incoming: the last changed ")
    assert not (project / "data" / "manifest.jsonl").exists()


def test_experiment_leaves_the_project_alone_and_is_listed_there(prefect: Any, project: Path) -> None:
    before = (project / "params.yaml").read_text()
    prefect.command("flows.experiment", "low", "second.score=0.2", cwd=project)
    assert (project / "params.yaml").read_text() == before
    assert ran(project) == []
    assert "low" in run_dvc(project, "exp", "list", "--name-only").split()


def test_release_tags_and_copies(prefect: Any, project: Path) -> None:
    # The gate reads reports/eval.json: here the stage `second` writes it.
    for name in ("dvc.yaml", "work.py"):
        text = (project / name).read_text()
        (project / name).write_text(text.replace("reports/second.json", "reports/eval.json"))
    git(project, "mv", "reports/second.json", "reports/eval.json")
    dvc.repro(root=project, on_line=lambda _: None)
    commit(project)
    prefect.command("flows.release", "--to", "runs/out", cwd=project)
    assert git(project, "tag", "--points-at", "HEAD") == "model-1"
    assert (project / "runs" / "out" / "model-1" / "contract.json").is_file()
    (artifact,) = prefect.read("/artifacts", artifacts={"key": {"any_": ["gates"]}})
    assert "reports/eval.json:overall.exact_match" in artifact["data"]
