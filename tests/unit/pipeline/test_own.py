"""Settings for own data in a workspace, and the weights that it starts from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mirasol.core.errors import MirasolError
from mirasol.data.probe import Facts, Spread
from mirasol.model.config import ModelSpec
from mirasol.model.sizes.presets import build_config
from mirasol.pipeline import own
from mirasol.pipeline.facts import data_of
from mirasol.pipeline.params.load import load_params

SIZES = {"size": 48, "frames_per_chunk": 4, "mels": 32, "audio_columns": 16, "vocabulary": 64, "max_text": 32}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's params file, whose data are said to be 40 clips."""
    two = Spread(2.0, 2.0, 2.0, 2.0)
    facts = Facts({"train": 40}, 40, {"qa": 40}, two, two, two, two, 1.0, 1.0, (), 1, 30, 3, 20, frozenset())
    monkeypatch.setattr(own, "facts_of", lambda folder: facts)
    (tmp_path / "params.yaml").write_text("the project's\n")
    return tmp_path


def propose(folder: Path) -> list[str]:
    said: list[str] = []
    own.write_proposal(folder, "the project's", said.append)
    return said


def test_the_projects_file_gives_way_to_a_proposal(workspace: Path) -> None:
    propose(workspace)
    first = (workspace / "params.yaml").read_text()
    propose(workspace)
    assert "clip:" in first and (workspace / "params.yaml").read_text() == first


def test_an_edited_proposal_stays(workspace: Path) -> None:
    propose(workspace)
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("seed: 1", "seed: 2"))
    said = propose(workspace)
    assert "seed: 2" in path.read_text() and "was edited" in said[0]


def test_data_without_val_are_refused_at_once(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = dataclasses.replace(own.facts_of(workspace), lack="the split val: training cannot score itself")
    monkeypatch.setattr(own, "facts_of", lambda folder: facts)
    with pytest.raises(MirasolError, match=r"data: no row in the split val: .* \(clips now: train 40\)"):
        propose(workspace)


def test_unreadable_media_leave_the_projects_file(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(folder: Path) -> Facts:
        raise MirasolError("none can be read")

    monkeypatch.setattr(own, "facts_of", unreadable)
    assert "none can be read" in propose(workspace)[0]
    assert (workspace / "params.yaml").read_text() == "the project's\n"


def weights(folder: Path, **changed: object) -> Path:
    folder.mkdir(parents=True)
    config = build_config(ModelSpec(num_queries=4), **SIZES).to_dict() | changed  # type: ignore[arg-type]
    (folder / own.CONFIG).write_text(json.dumps(config))
    (folder / own.WEIGHTS).write_bytes(b"")
    return folder


def test_a_project_a_folder_and_a_bundle_mean_their_weights(tmp_path: Path) -> None:
    folder = weights(tmp_path / "build/finetune")
    pieces = tmp_path / "build/tokenizer/tokenizer.json"
    pieces.parent.mkdir()
    pieces.write_text("{}")
    bundle = tmp_path / "build/bundle"
    bundle.mkdir()
    (bundle / "contract.json").write_text("{}")
    found = [own.find_start(path) for path in (tmp_path, folder, bundle)]
    assert {(start.weights, start.pieces) for start in found} == {(folder, pieces)}


def test_a_bundle_without_its_training_is_refused(tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text("{}")
    with pytest.raises(MirasolError, match="a bundle holds graphs alone"):
        own.find_start(tmp_path)


def test_weights_are_moved_and_named_in_the_params_file(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []

    def command(folder: Path, *words: str, on_line: object) -> None:
        ran.append(words)
        (folder / own.START).mkdir(parents=True, exist_ok=True)
        (folder / own.START / own.WEIGHTS).write_bytes(b"moved")

    monkeypatch.setattr(own, "mirasol", command)
    propose(workspace)
    own.begin_from(workspace, own.find_start(weights(tmp_path / "w")), print)
    assert [words[:2] for words in ran] == [("stage", "tokenizer"), ("weights", "import")]
    assert load_params(workspace / "params.yaml").training.init.startswith("runs/start@")
    assert propose(workspace)[0].startswith(str(workspace)), "it counts as not edited"


def test_the_values_make_a_model_of_the_same_shapes(tmp_path: Path) -> None:
    values = own.values_of(own.find_start(weights(tmp_path / "w")).config)
    assert (values["model.preset"], values["model.num_queries"], values["clip.mels"]) == ("demo", 4, 32)


@pytest.mark.parametrize("record", ["build/bundle/contract.json", "build/shards/shards.json"])
def test_the_level_of_the_sound_follows_from_the_weights(workspace: Path, tmp_path: Path, record: str) -> None:
    folder = weights(tmp_path / "trained/build/finetune")
    (tmp_path / "trained" / record).parent.mkdir()
    (tmp_path / "trained" / record).write_text('{"clip": {"level": "absolute"}}')
    own.write_proposal(workspace, "the project's", print)
    assert load_params(workspace / "params.yaml").clip.level == "relative"
    own.write_proposal(workspace, "the project's", print, own.find_start(folder))
    assert load_params(workspace / "params.yaml").clip.level == "absolute"


def test_sizes_of_no_preset_are_refused(tmp_path: Path) -> None:
    start = own.find_start(weights(tmp_path / "w", audio_layers=7))
    with pytest.raises(MirasolError, match="no preset"):
        own.values_of(start.config)


@pytest.mark.parametrize(("name", "kind"), [("generic", "own"), ("drone", "own"), ("vggsound", "published")])
def test_an_import_says_whose_data_they_are(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "import.json").write_text(json.dumps({"set": name}))
    assert data_of(tmp_path) == {"kind": kind, "set": name}


def test_the_world_is_no_import(tmp_path: Path) -> None:
    (tmp_path / "families.json").write_text("{}")
    assert data_of(tmp_path)["kind"] == "world"
