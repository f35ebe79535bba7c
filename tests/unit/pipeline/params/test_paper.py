"""recipes/paper.yaml holds every line of S 4, and a file that differs says where."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mirasol.cli.main import app
from mirasol.pipeline.params.errors import ParamsError
from mirasol.pipeline.params.load import load_params, of_set, read_params
from mirasol.pipeline.params.paper import LINES, compare

ROOT = Path(__file__).parents[4]
PAPER = ROOT / "recipes" / "paper.yaml"


def edited(folder: Path, old: str, new: str) -> Path:
    text = PAPER.read_text(encoding="utf-8")
    assert old in text
    path = folder / "params.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_recipe_holds_every_line_of_the_paper() -> None:
    rows = compare(read_params(PAPER))
    assert [row for row in rows if row.paper] == []
    assert {row.says for row in rows} == {line.says for line in LINES}


def test_a_key_is_named_where_the_file_states_it() -> None:
    keys = {(row.part, row.says): row.key for row in compare(read_params(PAPER))}
    assert keys["pretraining", "batch of 32"] == "phases.batch_size"
    assert keys["finetuning", "80 epochs of ActivityNet-QA"] == "sets.activitynet-qa.epochs"
    assert keys["video-audio", "448 x 448"] == "finetune.size"


def test_a_value_that_differs_is_shown_with_the_papers(tmp_path: Path) -> None:
    rows = compare(read_params(edited(tmp_path, "lr: 5e-6", "lr: 1e-4")))
    (row,) = [row for row in rows if row.paper]
    assert (row.key, row.value, row.paper) == ("finetune.lr", "0.0001", "5e-06")


def test_a_file_without_sets_lacks_them() -> None:
    rows = compare(read_params(ROOT / "params.yaml"))
    (row,) = [row for row in rows if row.says == "80 epochs of ActivityNet-QA"]
    assert (row.key, row.value, row.paper) == ("sets.activitynet-qa.epochs", "missing", "80")


def test_check_prints_the_lines_with_their_keys() -> None:
    result = CliRunner().invoke(app, ["params", "check", str(PAPER)])
    assert result.exit_code == 0
    for line in LINES:
        assert line.says in result.stdout
    assert "the paper:" not in result.stdout


def test_a_data_sets_keys_are_written_into_finetune(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(of_set(PAPER, "vggsound"), encoding="utf-8")
    finetune = load_params(path).finetune
    assert (finetune.lr, finetune.optimizer, finetune.weight_decay, finetune.epochs) == (1e-5, "adam", 1e-4, 10)
    assert "sets:" not in path.read_text(encoding="utf-8")
    assert "# A clip at rest" in path.read_text(encoding="utf-8")


def test_a_file_without_sets_is_taken_as_it_is(tmp_path: Path) -> None:
    assert of_set(ROOT / "params.yaml", "vggsound") == (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("  nextqa-mc: {epochs: 20", "  nextqa: {epochs: 20", "sets.nextqa: unknown data set: did you mean"),
        ("lr: 1e-5\n    optimizer", "lr: fast\n    optimizer", "sets.vggsound.lr: got 'fast'"),
        ("mixup: 0.5", "mixed: 0.5", "sets.vggsound.mixed: unknown key: did you mean `mix"),
        ("frames_per_chunk: 32}  #", "frames_per_chunk: 5}  #", "sets.activitynet-qa.frames_per_chunk: got 5 with"),
        ("kinetics-sounds: *sounds", "kinetics-sounds: 3", "sets.kinetics-sounds: got 3 (integer), expected keys"),
    ],
)
def test_a_wrong_set_is_a_problem_of_the_file(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(ParamsError) as caught:
        load_params(edited(tmp_path, old, new))
    assert problem in str(caught.value)
