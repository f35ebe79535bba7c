"""Nodes that do not see the first one's folder: they train, are killed, resume and end as nodes with one folder do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.nodes import await_file, finish, kill, nodes, stage, write_params
from support.scratch import REPOSITORY

from mirasol.data.world.make import make_world


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with tokenizer and shards, whose tars are behind a URL."""
    project = tmp_path_factory.mktemp("made") / "project"
    write_params(project, shards={"storage": f"file://{project.parent}/tars"})
    make_world(project / "data", clips=12, workers=1)
    stage(project, "tokenizer", "shards")
    return project


@pytest.fixture
def first(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "first"))


@pytest.fixture
def second(made: Path, tmp_path: Path) -> Path:
    """Another node's project: what git has of it."""
    project = tmp_path / "second"
    project.mkdir()
    shutil.copy(made / "params.yaml", project)
    return project


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"file://{tmp_path}/storage"


def results(project: Path, phase: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project / "build" / phase).rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_killed_run_ends_with_the_bytes_of_one_with_a_shared_folder(
    made: Path, first: Path, second: Path, storage: str, tmp_path: Path, sharding: str
) -> None:
    shared = Path(shutil.copytree(made, tmp_path / "shared"))
    for project in (first, second, shared):
        write_params(project, training={"sharding": sharding}, shards={"storage": f"file://{made.parent}/tars"})
    with nodes((shared, shared), "pretrain") as agents:
        statuses, said = finish(agents)
        assert statuses == [0, 0], said
    with nodes((first, second), "pretrain", storage) as agents:
        await_file(agents, tmp_path / "storage/pretrain", "step-12.*.ckpt")
        kill(agents)
    with nodes((second, first), "pretrain", storage) as agents:  # the other leads
        statuses, said = finish(agents)
    assert statuses == [0, 0], said
    assert "resumes at step 1" in said
    assert results(first, "pretrain") == results(second, "pretrain") == results(shared, "pretrain")


@pytest.mark.slow
def test_the_next_phase_gets_the_weights_from_the_storage(first: Path, second: Path, storage: str) -> None:
    stage(first, "pretrain")
    with nodes((first, second), "audio_pretrain", storage) as agents:
        statuses, said = finish(agents)
    assert statuses == [0, 0], said
    assert results(first, "audio_pretrain") == results(second, "audio_pretrain")


@pytest.mark.slow
def test_without_a_storage_the_node_is_named(first: Path, second: Path) -> None:
    with nodes((first, second), "pretrain") as agents:
        statuses, said = finish(agents)
    assert statuses == [2, 2], said
    assert f"{second} holds no build/shards/shards.json, build/tokenizer/tokenizer.json: put the project on" in said
    assert "(process 1 on " in said


@pytest.mark.slow
def test_a_node_that_cannot_reach_the_storage_is_named(first: Path, second: Path) -> None:
    with nodes((first, second), "pretrain", "file:///proc/none") as agents:
        statuses, said = finish(agents)
    assert statuses == [2, 2], said
    assert "file:///proc/none/files" in said


@pytest.mark.slow
def test_a_node_with_other_code_is_named(first: Path, second: Path, storage: str, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "src", tmp_path / "src")
    with (tmp_path / "src/mirasol/training/optim.py").open("a") as file:
        file.write("OTHER = 1\n")
    with nodes((first, second), "pretrain", storage, ({}, {"PYTHONPATH": str(tmp_path / "src")})) as agents:
        statuses, said = finish(agents)
    assert statuses == [2, 2], said
    assert "this process runs something else than the first one: code (" in said


@pytest.mark.slow
def test_a_node_with_other_parameters_is_named(first: Path, second: Path, storage: str) -> None:
    write_params(second, training={"micro_batch": 1})
    with nodes((first, second), "pretrain", storage) as agents:
        statuses, said = finish(agents)
    assert statuses == [2, 2], said
    assert "training.micro_batch (0, now 1) (process 1 on " in said
