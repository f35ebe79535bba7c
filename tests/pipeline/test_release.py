"""A release: only committed, current results that are no worse; whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.scratch import PARAMS, commit, git

from mirasol.core.errors import MirasolError
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.dvc.lock import hold
from mirasol.pipeline.release import check_state, judge, publish, released_tag
from mirasol.runtime.releases import Registry

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
    with pytest.raises(MirasolError, match=r"exact_match: 0\.5 \(released 0\.9, may fall by 0\.01; one seed"):
        _publish(project)
    assert git(project, "tag", "--list") == "model-1"
    assert [release.name for release in Registry(project / "runs" / "out").releases()] == ["model-1"]


def test_a_model_as_good_is_released(project: Path) -> None:
    _publish(project)
    _score(project, 0.895)
    assert _publish(project) == "model-2"


def test_a_fall_within_the_spread_over_seeds_is_no_regression(project: Path) -> None:
    _publish(project)
    overall = {"mean": 0.9, "worst": 0.85, "seeds": [0.95, 0.9, 0.85]}
    (project / "reports" / "seeds.json").write_text(json.dumps({"overall": overall}))
    _score(project, 0.81)
    (verdict,) = judge(project, GATES)
    assert verdict.passed
    assert str(verdict).endswith("(released 0.9, may fall by 0.1; spread over 3 seeds counted)")


def test_the_same_commit_and_bundle_are_released_once(project: Path) -> None:
    assert (_publish(project), _publish(project)) == ("model-1", "model-1")
    assert git(project, "tag", "--list") == "model-1"


def test_a_tag_whose_folder_is_gone_gets_it_back(project: Path) -> None:
    _publish(project)
    shutil.rmtree(project / "runs" / "out")
    assert _publish(project) == "model-1"
    assert (project / "runs" / "out" / "model-1" / "release.json").is_file()


def test_another_bundle_of_the_same_commit_is_another_release(project: Path) -> None:
    _publish(project)
    (project / "build" / "bundle" / "contract.json").write_text('{"other": 1}')
    assert _publish(project) == "model-2"


def test_a_release_becomes_current_and_is_what_the_next_one_has_to_beat(project: Path) -> None:
    _publish(project)
    _score(project, 0.95)
    _publish(project)
    registry = Registry(project / "runs" / "out")
    assert registry.get("current").name == "model-2"
    registry.append("model-1")  # as a rollback does
    assert released_tag(project, "runs/out") == "model-1"
    assert judge(project, GATES, "runs/out")[0].released == 0.9


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
    with pytest.raises(MirasolError, match="cannot write"):
        _publish(project)
    assert git(project, "tag", "--list") == ""
