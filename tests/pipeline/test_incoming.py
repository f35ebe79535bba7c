"""A folder in which files arrive: what is new, and what is whole."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from support.scratch import PARAMS, git

from mirasol.core.errors import MirasolError
from mirasol.pipeline.incoming import COPY, Incoming, finish, finished, local_copy, read_incoming
from mirasol.pipeline.release import check_sources, commit_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One clip with its annotations."""
    found = tmp_path / "incoming"
    (found / "day").mkdir(parents=True)
    (found / "annotations.csv").write_text("media,answers\nday/1.mp4,yes\n")
    (found / "day" / "1.mp4").write_text("clip 1")
    return found


def test_any_change_of_a_file_is_another_version(folder: Path) -> None:
    versions = [read_incoming(folder).version]
    (folder / "day" / "2.mp4").write_text("clip 2")
    versions.append(read_incoming(folder).version)
    (folder / "day" / "2.mp4").write_text("a longer clip 2")
    versions.append(read_incoming(folder).version)
    assert len(set(versions)) == 3
    assert read_incoming(folder).version == versions[-1]


def test_a_copy_that_keeps_an_old_time_is_young(folder: Path) -> None:
    os.utime(folder / "day" / "1.mp4", (1, 1))
    assert read_incoming(folder).age < 60 < time.time() - 1


def test_a_folder_without_annotations_has_nothing_to_import(tmp_path: Path) -> None:
    found = read_incoming(tmp_path)
    assert (found.annotations, found.files, found.age) == (None, 0, float("inf"))


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match=r"no such folder: expected one with annotations\.csv"):
        read_incoming(tmp_path / "none")


def test_two_annotation_files_are_refused(folder: Path) -> None:
    (folder / "annotations.jsonl").write_text("")
    with pytest.raises(MirasolError, match="expected one of them"):
        read_incoming(folder)


def test_the_result_is_remembered(tmp_path: Path) -> None:
    assert finished(tmp_path) == ("", "")
    finish(tmp_path, Incoming(tmp_path, None, 0, "v1", 0.0), "released model-1")
    assert finished(tmp_path) == ("v1", "released model-1")


def test_a_copy_of_a_url_changes_only_with_it(folder: Path, tmp_path: Path) -> None:
    url = f"file://{folder}"
    said: list[str] = []
    copy = local_copy(tmp_path, url, said.append)
    assert copy == tmp_path / COPY and said == ["annotations.csv: 28 bytes"]
    version = read_incoming(copy).version
    local_copy(tmp_path, url, said.append)
    assert read_incoming(copy).version == version
    (folder / "annotations.csv").write_text("media,answers\nday/1.mp4,oui\n")
    local_copy(tmp_path, url, said.append)
    assert (copy / "annotations.csv").read_text().endswith("oui\n")


def test_results_are_committed_and_nothing_else(project: Path) -> None:
    (project / "params.yaml").write_text(PARAMS.replace("x: 1", "x: 2"))
    (project / "reports" / "second.json").write_text("{}")
    (project / "data.dvc").write_text((project / "data.dvc").read_text() + "\n")
    git(project, "add", "params.yaml")
    assert commit_results(project, "Results")
    assert git(project, "show", "--format=", "--name-only").split() == ["data.dvc", "reports/second.json"]
    assert git(project, "status", "--porcelain") == "M  params.yaml"


def test_a_project_in_a_folder_of_a_repository_commits_its_own(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "dvc.yaml").write_text("stages: {a: {cmd: make, outs: [build/a]}}\n")
    (root / "data.dvc").write_text("first")
    (tmp_path / "other").write_text("first")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    for key, value in (("name", "a"), ("email", "a@b")):
        git(tmp_path, "config", f"user.{key}", value)
    git(tmp_path, "commit", "--quiet", "--message", "First")
    (root / "data.dvc").write_text("second")
    (tmp_path / "other").write_text("second")
    assert commit_results(root, "Data")
    assert git(tmp_path, "status", "--porcelain").split() == ["M", "other"]


def test_new_reports_are_committed(project: Path) -> None:
    git(project, "rm", "--quiet", "--cached", "reports/second.json", "dvc.lock")
    git(project, "commit", "--quiet", "--message", "No results")
    assert commit_results(project, "Results")
    assert git(project, "show", "--format=", "--name-only").split() == ["dvc.lock", "reports/second.json"]


def test_without_a_change_nothing_is_committed(project: Path) -> None:
    before = git(project, "rev-parse", "HEAD")
    assert not commit_results(project, "Results")
    assert git(project, "rev-parse", "HEAD") == before


def test_changed_code_is_refused_but_changed_results_are_not(project: Path) -> None:
    (project / "reports" / "second.json").write_text("{}")
    check_sources(project)
    (project / "work.py").write_text("")
    with pytest.raises(MirasolError, match=r"not committed: work\.py\. Commit them"):
        check_sources(project)
