"""Workspaces: a clone with its own data and parameters, one cache for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.annotations import write
from support.media import write_media
from support.scratch import PARAMS, commit, git, ran, run_dvc

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import read_manifest
from mirasol.pipeline.dvc import dvc
from mirasol.pipeline.workspace import Import, make_workspace


def _quiet(line: str) -> None:
    pass


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A user's media with annotations next to them; the import does not look inside the files."""
    folder = tmp_path / "videos"
    folder.mkdir()
    rows = ["media,answers,split"]
    for number in range(6):
        (folder / f"{number}.mp4").write_text(f"not really video {number}\n")
        rows.append(f"{number}.mp4,{'yes' if number % 2 else 'no'},{('train', 'val', 'test')[number % 3]}")
    (folder / "annotations.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_own_data_and_parameters(project: Path, videos: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(PARAMS.replace("score: 0.9", "score: 0.4"))
    folder = make_workspace("mine", root=project, params=recipe, data=Import(videos), say=_quiet)
    assert folder == project / "runs" / "workspaces" / "mine"
    assert (folder / "data" / "manifest.jsonl").read_text().count("\n") == 6
    assert (folder / "params.yaml").read_text() == recipe.read_text()
    assert git(folder, "status", "--porcelain") == ""
    assert not (folder / "reports" / "second.json").exists(), "results of the project's own data"
    assert dvc.repro(root=folder, on_line=_quiet) == "ran"
    assert ran(folder) == ["first", "second", "third"]
    assert ran(project) == []
    assert dvc.status(project) == {}


def test_media_without_annotations_alone(project: Path, tmp_path: Path) -> None:
    write_media(tmp_path / "raw" / "a.mp4", frames=8)
    folder = make_workspace("raw", root=project, data=Import(unlabelled=tmp_path / "raw"), say=_quiet)
    (row,) = read_manifest(folder / "data" / "manifest.jsonl")
    assert (row.media, row.task) == ("media/a.mp4", "unlabelled")
    assert "tasks: unlabelled" in (folder / "params.yaml").read_text()


def test_a_published_set_with_its_annotations_elsewhere(project: Path, tmp_path: Path) -> None:
    media = tmp_path / "clips"
    media.mkdir()
    for name in ("aaaaaaaaaaa_000030.mp4", "bbbbbbbbbbb_000040.mp4"):
        (media / name).write_text(f"not really {name}\n")
    rows = ["aaaaaaaaaaa,30,dog barking,train", "bbbbbbbbbbb,40,cat purring,test", "ccccccccccc,50,lost,test"]
    annotations = write(tmp_path / "annotations", {"vggsound.csv": "\n".join(rows) + "\n"})
    folder = make_workspace(
        "vgg",
        root=project,
        data=Import(media, "vggsound", annotations, ["--skip-missing", "--link", "symlink"]),
        say=_quiet,
    )
    assert (folder / "data/manifest.jsonl").read_text().count("\n") == 2
    assert (folder / "data/media").resolve() == media
    assert git(folder, "status", "--porcelain") == ""


def test_a_published_set_with_its_annotations_next_to_the_media(project: Path, tmp_path: Path) -> None:
    rows = "audiocap_id,youtube_id,start_time,caption\n1,aaaaaaaaaaa,30,A dog barks\n"
    data = write(tmp_path / "audiocaps", {"train.csv": rows, "aaaaaaaaaaa_30.wav": "not really a sound"})
    folder = make_workspace("caps", root=project, data=Import(data, "audiocaps"), say=_quiet)
    assert "A dog barks" in (folder / "data/manifest.jsonl").read_text()


def test_the_cache_is_shared(project: Path) -> None:
    folder = make_workspace("same", root=project, say=_quiet)
    assert dvc.cache_dir(folder) == dvc.cache_dir(project)
    run_dvc(folder, "checkout")
    assert dvc.status(folder) == {}
    assert not (folder / ".dvc" / "cache").exists()


def test_made_again_it_keeps_what_it_computed(project: Path, videos: Path) -> None:
    folder = make_workspace("mine", root=project, data=Import(videos), say=_quiet)
    dvc.repro(root=folder, on_line=_quiet)
    ran(folder)
    assert make_workspace("mine", root=project, data=Import(videos), say=_quiet) == folder
    dvc.repro(root=folder, on_line=_quiet)
    assert ran(folder) == []


def test_a_commit_in_the_project_keeps_what_it_computed(project: Path, videos: Path) -> None:
    folder = make_workspace("mine", root=project, data=Import(videos), say=_quiet)
    dvc.repro(root=folder, on_line=_quiet)
    (folder / "reports/second.json").write_text('{"overall": {"exact_match": 0.9}}')
    kept = {name: (folder / name).read_bytes() for name in ("dvc.lock", "reports/second.json")}
    (project / "README.md").write_text("new\n")
    commit(project)
    make_workspace("mine", root=project, data=Import(videos), say=_quiet)
    assert (folder / "README.md").exists()
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    ran(folder)
    assert dvc.status(folder) == {}


def test_parameters_that_a_user_edited_there_stay(project: Path) -> None:
    folder = make_workspace("mine", root=project, say=_quiet)
    (folder / "params.yaml").write_text(PARAMS.replace("score: 0.9", "score: 0.2"))
    (project / "README.md").write_text("new\n")
    commit(project)
    make_workspace("mine", root=project, say=_quiet)
    assert "score: 0.2" in (folder / "params.yaml").read_text()


def test_it_follows_the_project_unless_it_has_work_of_its_own(project: Path) -> None:
    folder = make_workspace("mine", root=project, say=_quiet)
    (project / "params.yaml").write_text(PARAMS.replace("score: 0.9", "score: 0.5"))
    commit(project)
    make_workspace("mine", root=project, say=_quiet)
    assert "score: 0.5" in (folder / "params.yaml").read_text()

    (folder / "work.py").write_text((folder / "work.py").read_text() + "# mine\n")
    (project / "params.yaml").write_text(PARAMS.replace("score: 0.9", "score: 0.6"))
    commit(project)
    said: list[str] = []
    make_workspace("mine", root=project, say=said.append)
    assert (folder / "work.py").read_text().endswith("# mine\n")
    assert any("has work of its own (work.py)" in line for line in said)


def test_uncommitted_code_is_named(project: Path) -> None:
    (project / "dvc.yaml").write_text((project / "dvc.yaml").read_text() + "# edited\n")
    said: list[str] = []
    make_workspace("mine", root=project, say=said.append)
    assert any("not committed stay out of the workspace: dvc.yaml" in line for line in said)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("../up", {}, "workspace name"),
        ("mine", {"params": "no.yaml"}, "--params no.yaml: no such file"),
        ("mine", {"data": Import(".")}, "has neither annotations.csv and annotations.jsonl"),
        ("mine", {"data": Import(".", "vgg")}, "--adapter vgg: expected one of generic, drone, fsdd, msrvtt-qa"),
        (
            "mine",
            {"data": Import(".", "fsdd", unlabelled=".")},
            "--unlabelled .: goes with --adapter generic, not fsdd",
        ),
        ("mine", {"data": Import(unlabelled="no")}, "--unlabelled no: no such file"),
        ("mine", {"data": Import(".", "fsdd", ".")}, "fsdd is read from the names of its files"),
        ("mine", {"data": Import(".", annotations="no.csv")}, "--annotations no.csv: no such file"),
        ("mine", {"data": Import(options=["--skip-missing"])}, "go with --data"),
    ],
)
def test_what_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(MirasolError, match=message):
        make_workspace(name, root=project, say=_quiet, **options)
    assert not (project / "runs" / "workspaces").exists()


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="no git repository with a commit"):
        make_workspace("mine", root=tmp_path, say=_quiet)


def test_a_failed_import_can_be_fixed_and_tried_again(project: Path, videos: Path) -> None:
    (videos / "3.mp4").rename(videos / "lost.mp4")
    with pytest.raises(MirasolError, match=r"3\.mp4"):
        make_workspace("mine", root=project, data=Import(videos), say=_quiet)
    (videos / "lost.mp4").rename(videos / "3.mp4")
    folder = make_workspace("mine", root=project, data=Import(videos), say=_quiet)
    assert (folder / "data.dvc").exists()
    assert git(folder, "log", "-1", "--format=%s") == "Workspace mine"
