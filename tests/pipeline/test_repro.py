"""DVC through `mirasol.pipeline.dvc.dvc`, on a small project of three stages in a row."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.scratch import (
    alive,
    git,
    hanging_pids,
    ran,
    run_dvc,
    tell,
    wait_gone,
)

from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.lock import hold


def _change(root: Path, old: str, new: str) -> None:
    path = root / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_second_time_runs_nothing(project: Path) -> None:
    assert dvc.status(project) == {}
    assert dvc.repro(root=project) == "unchanged"
    assert ran(project) == []


def test_a_parameter_runs_its_stage_and_what_follows(project: Path) -> None:
    _change(project, "score: 0.9", "score: 0.8")
    assert list(dvc.status(project)) == ["second"]
    assert dvc.status(project)["second"] == ["changed deps: params.yaml second modified"]
    assert dvc.repro(root=project) == "ran"
    assert ran(project) == ["second", "third"]


def test_single_item_leaves_the_others_alone(project: Path) -> None:
    _change(project, "first: {x: 1}", "first: {x: 2}")
    assert dvc.repro("first", root=project) == "ran"
    assert ran(project) == ["first"]


def test_new_data_runs_what_reads_it(project: Path) -> None:
    (project / "data" / "9.txt").write_text("clip 9\n")
    assert set(dvc.status(project)) == {"data.dvc", "first"}
    dvc.call(project, "add", "data")
    dvc.repro(root=project)
    assert ran(project) == ["first", "second", "third"]


def test_a_result_seen_before_is_restored(project: Path) -> None:
    _change(project, "third: {x: 1}", "third: {x: 2}")
    assert dvc.repro("third", root=project) == "ran"
    _change(project, "third: {x: 2}", "third: {x: 1}")
    assert dvc.repro("third", root=project) == "restored"
    assert ran(project) == ["third"]


def test_lines_arrive_in_order(project: Path) -> None:
    _change(project, "third: {x: 1}", "third: {x: 3}")
    lines: list[str] = []
    dvc.repro("third", root=project, on_line=lines.append)
    assert [line for line in lines if line.startswith("[third]")] == ["[third] 1/2 clips", "[third] 2/2 clips"]
    assert not any("git add" in line for line in lines)


def test_a_stages_own_error_is_the_message(project: Path) -> None:
    _change(project, "score: 0.9", "score: 0.7")
    tell(project, "fail-second")
    with pytest.raises(dvc.StageError) as caught:
        dvc.repro("second", root=project)
    assert str(caught.value).startswith("stage `second` failed: clip 7 of data/manifest.jsonl is no video\n")
    assert not caught.value.transient


def test_the_error_says_how_the_last_outputs_come_back(project: Path) -> None:
    _change(project, "score: 0.9", "score: 0.7")
    tell(project, "fail-second")
    with pytest.raises(dvc.StageError) as caught:
        dvc.repro("second", root=project)
    found = re.search(r"come back with `(.+)`", str(caught.value))
    assert found and not (project / "build/second").exists()
    python = f"'{sys.executable}' -P -m dvc"
    subprocess.run(found[1].replace("dvc", python, 1), shell=True, cwd=project, check=True, capture_output=True)
    assert (project / "build/second").exists() and (project / "reports/second.json").exists()


def test_an_old_report_is_not_taken_for_a_new_one(project: Path) -> None:
    _change(project, "score: 0.9", "score: 0.6")
    tell(project, "fail-second")
    with pytest.raises(dvc.StageError, match="clip 7"):
        dvc.repro("second", root=project)
    (project / "runs" / "fail-second").unlink()
    tell(project, "crash-second")
    with pytest.raises(dvc.StageError, match="a word without a report") as caught:
        dvc.repro("second", root=project)
    assert "clip 7" not in str(caught.value)


def test_a_stage_that_was_killed_is_worth_another_try(project: Path) -> None:
    _change(project, "score: 0.9", "score: 0.5")
    tell(project, "kill-second")
    with pytest.raises(dvc.StageError, match="ended by signal 9") as caught:
        dvc.repro("second", root=project)
    assert caught.value.transient
    assert dvc.repro("second", root=project) == "ran"


def test_the_second_run_waits_for_the_first(project: Path) -> None:
    _change(project, "score: 0.9", "score: 0.4")
    hang = tell(project, "hang-second")
    script = "import sys; from mirasol.pipeline.dvc.dvc import repro; repro('second', root=sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", script, str(project)], stdout=subprocess.DEVNULL) as other:
        pids = hanging_pids(project)
        hang.unlink()
        with pytest.raises(MirasolError, match=r"in use by `dvc repro second`"), hold(project, "x", wait=0):
            pass
        said: list[str] = []
        second = threading.Thread(target=dvc.repro, args=("second",), kwargs={"root": project, "on_line": said.append})
        second.start()
        second.join(1.0)
        assert second.is_alive() and "waiting" in said[0]
        other.kill()
        second.join(30.0)
    assert not any(map(alive, pids)), "the second run began before the last child of the first was gone"
    assert ran(project) == ["second", "second"]
    assert dvc.status(project).keys() == {"third"}


def test_the_next_run_survives_half_a_lock_file(project: Path) -> None:
    # A DVC that is killed while it writes leaves this, and refuses every command from then on.
    (project / ".dvc" / "tmp" / "rwlock").write_text('{"read": {')
    assert dvc.status(project) == {}


def test_metrics_of_now_and_of_a_commit(project: Path) -> None:
    _change(project, "score: 0.9", "score: 0.3")
    dvc.repro("second", root=project)
    stages = dvc.read_stages(project / "dvc.yaml")
    assert dvc.metrics(project, stages) == {"reports/second.json": {"overall": {"exact_match": 0.3}}}
    assert dvc.metrics(project, stages, rev="HEAD") == {"reports/second.json": {"overall": {"exact_match": 0.9}}}
    assert dvc.metrics(project, stages, rev="no-such-tag") == {}


def test_push_lose_the_cache_pull(project: Path, tmp_path: Path) -> None:
    run_dvc(project, "remote", "add", "--default", "store", str(tmp_path / "store"))
    dvc.push(project)
    for name in (".dvc/cache", "data", "build"):
        shutil.rmtree(project / name)
    assert "first" in dvc.status(project)
    dvc.call(project, "pull")
    assert dvc.status(project) == {}
    assert ran(project) == []


def test_a_remote_that_is_not_there_is_worth_another_try(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run_dvc(project, "remote", "add", "--default", "store", str(tmp_path / "file" / "store"))
    with pytest.raises(dvc.StageError, match="push` failed") as caught:
        dvc.push(project)
    assert caught.value.transient


def test_experiment_on_the_spot(project: Path) -> None:
    with hold(project, "test") as lock:
        assert dvc.exp_run("low", ["second.score=0.2"], root=project, lock=lock) == "ran"
    assert ran(project) == ["second", "third"]
    assert "low" in run_dvc(project, "exp", "list", "--name-only")
    assert "second.score" in run_dvc(project, "params", "diff")
    assert "0.2" in run_dvc(project, "metrics", "diff")


def test_interrupting_leaves_a_project_that_goes_on(project: Path) -> None:
    _change(project, "score: 0.9", "score: 0.1")
    hang = tell(project, "hang-second")
    script = "import sys; from mirasol.pipeline.dvc.dvc import repro; repro('second', root=sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", script, str(project)], stdout=subprocess.DEVNULL) as run:
        pids = hanging_pids(project)
        run.terminate()
    wait_gone(pids)
    hang.unlink()
    assert dvc.repro("second", root=project) == "ran"
    assert git(project, "status", "--porcelain", "--", "dvc.lock")


def test_media_behind_a_link_are_not_tracked_and_the_link_stays(project: Path, tmp_path: Path) -> None:
    """What `mirasol data import --link symlink` counts on."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/0.mp4").write_text("large\n")
    (project / "data/media").symlink_to(tmp_path / "videos")
    assert dvc.status(project) == {}
    (project / "data/0.txt").write_text("clip 0, again\n")
    dvc.call(project, "add", "data")
    assert "nfiles: 3" in (project / "data.dvc").read_text()
    git(project, "checkout", "data.dvc")
    run_dvc(project, "checkout", "--force")
    assert (project / "data/0.txt").read_text() == "clip 0\n"
    assert (project / "data/media/0.mp4").read_text() == "large\n"
