"""A release: only committed, current results that are no worse; whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.scratch import PARAMS, commit, git

from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.lock import hold
from mirasol.pipeline.release import check_state, judge, publish, released_tag

GATES = {"reports/second.json:overall.exact_match": 0.01}


def _publish(root: Path) -> str:
    with hold(root, "test") as lock:
        return publish(root, "runs/out", judge(root, GATES), lock=lock, say=lambda _: None)


def _score(root: Path, value: float) -> None:
    (root / "params.yaml").write_text(PARAMS.replace("score: 0.9", f"score: {value}"))
    dvc.repro(root=root, on_line=lambda _: None)
    commit(root)


def test_the_first_release_has_nothing_to_beat(project: Path) -> None:
    assert released_tag(project) is None
    assert _publish(project) == "model-1"
    assert sorted(p.name for p in (project / "runs" / "out" / "model-1").iterdir()) == ["contract.json", "release.json"]
    assert git(project, "tag", "--points-at", "HEAD") == "model-1"


def test_a_worse_model_is_not_released(project: Path) -> None:
    _publish(project)
    _score(project, 0.5)
    with pytest.raises(MirasolError, match=r"exact_match: 0\.5 \(released 0\.9, may fall by 0\.01\)"):
        _publish(project)
    assert git(project, "tag", "--list") == "model-1"
    assert [p.name for p in (project / "runs" / "out").iterdir()] == ["model-1"]


def test_a_model_as_good_is_released(project: Path) -> None:
    _publish(project)
    _score(project, 0.895)
    assert _publish(project) == "model-2"


def test_what_is_not_committed_is_named(project: Path) -> None:
    check_state(project)
    (project / "params.yaml").write_text(PARAMS + "# a remark\n")
    (project / "reports" / "new.json").write_text("{}")
    with pytest.raises(MirasolError, match=r"not committed: params\.yaml, reports/new\.json"):
        check_state(project)


def test_stale_stages_are_named(project: Path) -> None:
    (project / "params.yaml").write_text(PARAMS.replace("score: 0.9", "score: 0.1"))
    commit(project)
    with pytest.raises(MirasolError, match="not up to date: second"):
        check_state(project)


def test_a_gate_that_is_no_number(project: Path) -> None:
    with pytest.raises(MirasolError, match=r"`reports/second\.json:overall\.exact`: no such number"):
        judge(project, {"reports/second.json:overall.exact": 0.0})


def test_a_folder_that_cannot_be_written_leaves_no_tag(project: Path) -> None:
    (project / "runs" / "out").touch()
    with pytest.raises(MirasolError, match="nothing was released"):
        _publish(project)
    assert git(project, "tag", "--list") == ""
