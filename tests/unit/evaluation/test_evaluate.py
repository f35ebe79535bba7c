from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import read_manifest, write_manifest
from mirasol.evaluation.evaluate import Evaluator
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.metrics import read_families
from mirasol.tokenizer import Tokenizer
from mirasol.training.config import TrainingConfig

SPEC = EvaluateSpec(resamples=100, batch_size=7)


def run(project: Path, max_damaged: float = 0.0, **changes: Any) -> dict[str, Any]:
    spec = dataclasses.replace(SPEC, **changes)
    build = project / "build"
    training = TrainingConfig(threads=1, max_damaged=max_damaged)
    words = build / "tokenizer/tokenizer.json"
    evaluator = Evaluator(build / "finetune", build / "shards", words, spec, training)
    return evaluator.evaluate(project / "data", build / "evaluate")


def predictions(project: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (project / "build/evaluate/predictions.jsonl").read_text().splitlines()]


def rewrite(project: Path, change) -> None:
    """Replace the manifest by what ``change`` makes of its examples."""
    path = project / "data/manifest.jsonl"
    write_manifest(path, change(read_manifest(path)))


def test_every_question_has_a_prediction_in_the_order_of_the_manifest(project: Path) -> None:
    run(project)
    asked = [e for e in read_manifest(project / "data/manifest.jsonl") if e.split == "test" and e.task == "qa"]
    rows = predictions(project)
    assert [row["example_id"] for row in rows] == [e.id for e in asked]
    assert set(rows[0]) == {"example_id", "clip", "group", "family", "prompt", "answers", "predicted"}
    assert set(rows[0]["predicted"]) == {"unchanged", "muted", "blanked", "swapped", "shuffled"}


def test_the_report_counts_every_question(project: Path) -> None:
    report = run(project)
    assert report["overall"]["n"] == len(predictions(project))
    assert report["overall"]["clips"] == 12
    assert report["split"] == "test"
    assert report["missing"] == []


def test_conditions_change_what_the_model_says(project: Path) -> None:
    run(project)
    for condition in ("muted", "blanked", "swapped", "shuffled"):
        assert any(row["predicted"][condition] != row["predicted"]["unchanged"] for row in predictions(project)), (
            condition
        )


def test_equal_inputs_give_equal_bytes(project: Path) -> None:
    path = project / "build/evaluate/predictions.jsonl"
    first = run(project), path.read_bytes()
    assert (run(project), path.read_bytes()) == first


def test_the_batch_size_does_not_matter(project: Path) -> None:
    answers = []
    for size in (1, 7, 64):
        run(project, batch_size=size)
        answers.append(predictions(project))
    assert answers[0] == answers[1] == answers[2]


def test_a_clip_that_the_shards_do_not_have_counts_wrong_and_is_listed(project: Path) -> None:
    def add(examples: list) -> list:
        asked = next(e for e in examples if e.split == "test" and e.task == "qa")
        return [*examples, dataclasses.replace(asked, id="lost", media="media/lost.mp4", group="lost")]

    rewrite(project, add)
    report = run(project)
    assert [(m["media"], m["questions"], m["reason"]) for m in report["missing"]] == [
        ("media/lost.mp4", 1, "not in the shards")
    ]
    assert set(predictions(project)[-1]["predicted"].values()) == {None}
    assert report["overall"]["clips"] == 13


def test_a_rejected_clip_is_listed_with_its_reason(project: Path) -> None:
    def add(examples: list) -> list:
        asked = next(e for e in examples if e.split == "test" and e.task == "qa")
        return [*examples, dataclasses.replace(asked, id="bad", media="media/bad.mp4", group="bad")]

    rewrite(project, add)
    key = next(m["clip"] for m in run(project)["missing"])
    path = project / "build/shards/shards.json"
    index = json.loads(path.read_text())
    index["rejected"].append({"key": key, "reason": "shorter than one chunk"})
    path.write_text(json.dumps(index))
    assert run(project)["missing"][0]["reason"] == "shorter than one chunk"


def test_an_empty_split_is_refused(project: Path) -> None:
    rewrite(project, lambda examples: [e for e in examples if e.split != "test" or e.task != "qa"])
    with pytest.raises(MirasolError, match=r"split 'test' has no example of task 'qa'.*train has \d+"):
        run(project)
    assert not (project / "build/evaluate/predictions.jsonl").exists()


def test_answers_that_cannot_be_said_whole_are_refused(project: Path) -> None:
    """Generation stops after max_answer tokens, so these questions would count wrong whatever the model learnt."""
    asked = [e for e in read_manifest(project / "data/manifest.jsonl") if e.split == "test" and e.task == "qa"]
    words = Tokenizer.load(project / "build/tokenizer/tokenizer.json")
    lengths = {answer: words.answer_length(answer) for e in asked for answer in e.answers}
    longest = max(lengths, key=lambda answer: lengths[answer])
    needed = lengths[longest]
    with pytest.raises(MirasolError, match=rf"(?s)evaluate.max_answer = {needed - 1}.*at least {needed}.*{longest}"):
        run(project, max_answer=needed - 1)
    assert not (project / "build/evaluate/predictions.jsonl").exists()
    run(project, max_answer=needed)


def test_one_answer_that_can_be_said_is_enough(project: Path) -> None:
    long = "an answer that is longer than eight tokens can ever be"
    rewrite(project, lambda examples: [dataclasses.replace(e, answers=(*e.answers, long)) for e in examples])
    run(project)


def test_shards_of_another_manifest_are_refused(project: Path) -> None:
    def rename(examples: list) -> list:
        last = max(i for i, e in enumerate(examples) if e.split == "test" and e.task == "qa")
        return [dataclasses.replace(e, id="new") if i == last else e for i, e in enumerate(examples)]

    rewrite(project, rename)
    with pytest.raises(MirasolError, match=r"(?s)made from another manifest.*new: not in the shards"):
        run(project)


def test_a_tokenizer_of_another_training_is_refused(project: Path) -> None:
    path = project / "build/tokenizer/tokenizer.json"
    value = json.loads(path.read_text())
    value["pieces"].pop()
    path.write_text(json.dumps(value))
    with pytest.raises(MirasolError, match="not of one training"):
        run(project)


def test_data_without_sound_is_evaluated(project: Path) -> None:
    """Clips without sound have no other sound to hear: the answers stay."""
    for path in sorted((project / "build/shards").glob("test-*.idx.json")):
        _silence(path)
    run(project)
    assert all(row["predicted"]["swapped"] == row["predicted"]["unchanged"] for row in predictions(project))


def _silence(index: Path) -> None:
    """Rewrite a tar's JSON, in place and of equal length, to say that its clips have no sound."""
    samples = json.loads(index.read_text())["samples"]
    index.write_text(json.dumps({"samples": samples}))  # without the hashes of the JSON: an index of earlier versions
    tar = index.with_name(index.name.removesuffix(".idx.json"))
    data = bytearray(tar.read_bytes())
    for _, places in samples:
        offset, size = places["json"]
        meta = json.loads(data[offset : offset + size])
        text = json.dumps(meta | {"has_audio": False, "audio_chunks": 0}, sort_keys=True, ensure_ascii=False)
        data[offset : offset + size] = text.encode().ljust(size)[:size]
    tar.write_bytes(data)


def test_the_number_of_threads_is_put_back(project: Path) -> None:
    before = torch.get_num_threads()
    run(project)
    assert torch.get_num_threads() == before


def test_without_families_chance_is_measured(project: Path) -> None:
    (project / "data/families.json").unlink()
    report = run(project)
    assert 0 <= report["overall"]["chance"] <= 1
    assert "kind" not in next(iter(report["families"].values()))


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 3}', '{"a": {"chance": 2}}'])
def test_broken_families_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "families.json").write_text(text)
    with pytest.raises(MirasolError, match=r"families\.json"):
        read_families(tmp_path)


def test_no_shards_are_refused(project: Path) -> None:
    shutil.rmtree(project / "build/shards")
    with pytest.raises(MirasolError, match="dvc repro shards"):
        run(project)
