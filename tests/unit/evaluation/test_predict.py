"""From weights to predictions of a benchmark, on the tiny project; and the world's score from its predictions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mirasol.cli import evaluate as commands
from mirasol.core.errors import MirasolError
from mirasol.data.manifest import read_manifest, write_manifest
from mirasol.evaluation import evaluate
from mirasol.evaluation.evaluate import Evaluator
from mirasol.tasks.base.protocol import Protocol
from mirasol.tasks.questions import questions_of
from mirasol.tasks.registry import PROTOCOLS
from mirasol.tasks.score import score_file, score_predictions
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.predictions import Prediction
from mirasol.training.config import TrainingConfig

SPEC = EvaluateSpec(resamples=100, batch_size=7)
GENERIC = PROTOCOLS["generic"]


def evaluator(project: Path) -> Evaluator:
    build = project / "build"
    words = build / "tokenizer/tokenizer.json"
    return Evaluator(build / "finetune", build / "shards", words, SPEC, TrainingConfig(threads=1, max_damaged=0.0))


def run(project: Path, protocol: Protocol = GENERIC) -> tuple[list[Prediction], list[dict[str, Any]]]:
    questions = questions_of(GENERIC, data=project / "data")
    return evaluator(project).predict(questions.asked, protocol.closed, questions.train)


def stage(project: Path) -> dict[str, Any]:
    return evaluator(project).evaluate(project / "data", project / "build/evaluate")


def test_predictions_are_those_of_the_stage(project: Path) -> None:
    stage(project)
    rows = [json.loads(line) for line in (project / "build/evaluate/predictions.jsonl").read_text().splitlines()]
    found, missing = run(project)
    assert [(p.id, p.predicted) for p in found] == [(row["example_id"], row["predicted"]["unchanged"]) for row in rows]
    assert missing == []


def test_the_worlds_score_is_the_stages_report(project: Path) -> None:
    report = stage(project)
    world, path = PROTOCOLS["world"], project / "build/evaluate/predictions.jsonl"
    questions = questions_of(world, data=project / "data")
    found = score_file(world, path, questions, spec=SPEC).report
    assert found["report"] == {key: value for key, value in report.items() if key not in ("split", "missing")}
    same = {"exact_match", "ci95", "n"}
    assert {k: found["overall"][k] for k in same} == {k: report["overall"][k] for k in same}


def test_answers_alone_score_the_world_without_conditions(project: Path) -> None:
    questions = questions_of(PROTOCOLS["world"], data=project / "data")
    right = [Prediction(q.id, q.answers[0]) for q in questions.asked]
    found = score_predictions(PROTOCOLS["world"], right, questions, spec=SPEC).report
    assert (found["report"], found["overall"]["exact_match"]) == (None, 1.0)


def test_a_clip_that_the_shards_do_not_have_is_no_answer_and_is_listed(project: Path) -> None:
    path = project / "data/manifest.jsonl"
    examples = read_manifest(path)
    asked = next(e for e in examples if e.split == "test" and e.task == "qa")
    write_manifest(path, [*examples, dataclasses.replace(asked, id="lost", media="media/lost.mp4", group="lost")])
    found, missing = run(project)
    assert (found[-1].id, found[-1].predicted) == ("lost", None)
    assert [(m["media"], m["questions"], m["reason"]) for m in missing] == [("media/lost.mp4", 1, "not in the shards")]


def pretend(monkeypatch: pytest.MonkeyPatch, best: int) -> None:
    """Scores of a closed set that prefer its answer number ``best``."""

    def scores(model: object, batch: Any, tokenizer: object, answers: Any, encoded: object) -> np.ndarray:
        count = len(answers[0][0]) if isinstance(answers[0], list) else len(answers)
        one = -np.abs(np.arange(count) - best).astype(np.float64)
        return np.broadcast_to(one, (len(batch.example_ids), len(batch.example_ids[0]), count))

    monkeypatch.setattr(evaluate, "score_answers", scores)
    monkeypatch.setattr(evaluate, "score_options", scores)


def test_classes_are_scored_next_to_the_generated_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _ = run(project)
    pretend(monkeypatch, best=2)
    found, _ = run(project, dataclasses.replace(GENERIC, closed="classes"))
    questions = questions_of(GENERIC, data=project / "data")
    classes = sorted({e.answers[0] for e in (*questions.asked, *questions.train)})
    assert [p.predicted for p in found] == [p.predicted for p in plain]
    assert all(p.ranked()[0] == classes[2] and len(p.scores) <= 10 for p in found)


def test_scores_are_those_of_the_model(project: Path) -> None:
    found, _ = run(project, dataclasses.replace(GENERIC, closed="classes"))
    for one in found:
        values = list(one.scores.values())
        assert values == sorted(values, reverse=True) and max(values) < 0
        if one.predicted in one.scores:  # greedy said one of the classes: no other can be likelier by much
            assert one.ranked()[0] == one.predicted or values[0] >= one.scores[one.predicted]


def test_the_best_option_is_the_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project / "data/manifest.jsonl"
    examples = [dataclasses.replace(e, options=("nothing", *e.answers)) for e in read_manifest(path)]
    write_manifest(path, examples)
    pretend(monkeypatch, best=1)
    monkeypatch.setattr("mirasol.evaluation.evaluate.answer", None)  # nothing is generated in vain
    found, _ = run(project, dataclasses.replace(GENERIC, closed="options"))
    asked = [e for e in examples if e.split == "test" and e.task == "qa"]
    assert [p.predicted for p in found] == [e.answers[0] for e in asked]


@pytest.mark.parametrize("closed", ["options", "classes"])
def test_answers_that_do_not_fit_are_refused_before_any_clip_is_read(
    project: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    path = project / "data/manifest.jsonl"
    examples = [dataclasses.replace(e, options=("no", 60 * "never ", *e.answers)) for e in read_manifest(path)]
    train = next(i for i, e in enumerate(examples) if e.split == "train" and e.task == "qa")
    examples[train] = dataclasses.replace(examples[train], answers=(60 * "never ",))
    write_manifest(path, examples)
    monkeypatch.setattr("mirasol.evaluation.evaluate.eval_loader", None)
    asked = sum(e.split == "test" and e.task == "qa" for e in examples)
    with pytest.raises(
        MirasolError, match=rf"{asked} of {asked} questions do not fit the text cache .*\n  .*'never ne"
    ):
        run(project, dataclasses.replace(GENERIC, closed=closed))


def test_the_command_writes_lines_that_score_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    params = Path(__file__).parents[3] / "params.yaml"
    (project / "params.yaml").write_text(params.read_text())
    none = Path("none")
    commands.evaluate("generic", "test", Path("build/finetune"), Path("data"), Path("runs/a"), none)
    commands.score(
        benchmark="generic", predictions=Path("runs/a/predictions.jsonl"), annotations=None, data=None, split="test",
        out=Path("runs/b"), missing_wrong=False, wordnet=none, as_json=False,
    )  # fmt: skip
    for name in ("predictions.jsonl", "scores.json"):
        assert Path("runs/a", name).read_bytes() == Path("runs/b", name).read_bytes()
    commands.compare([Path("runs/a/predictions.jsonl"), Path("runs/b/predictions.jsonl")], 1, None)
    printed = capsys.readouterr().out
    assert "+0.0000 to +0.0000" in printed
    assert printed.startswith("generic test ")


def test_a_benchmark_without_its_material_is_refused_before_answering(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "params.yaml").write_text((Path(__file__).parents[3] / "params.yaml").read_text())
    (project / "data/import.json").write_text('{"set": "nextqa-oe"}')
    with pytest.raises(MirasolError, match=r"stopwords\.txt"):
        commands.evaluate("nextqa-oe", None, Path("no weights"), Path("data"), Path("runs/a"), Path("none"))
