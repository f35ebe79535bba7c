"""Files of scored predictions against each other."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from mirasol.core.errors import MirasolError
from mirasol.tasks.scoring.compare import compare
from mirasol.tasks.scoring.config import EvaluateSpec

SPEC = EvaluateSpec(resamples=400)


def made(path: Path, share: float, *, count: int = 120, benchmark: str = "generic", seed: int = 0) -> Path:
    """Predictions of which about ``share`` are right, of 4 questions a video; the same questions are hard for all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hard, luck = random.Random(0), random.Random(f"{path.name}{share}{seed}")
    rows = []
    for i in range(count):
        right = hard.random() * 0.8 + luck.random() * 0.2 < share
        rows.append(row(i, "yes" if right else "no") | {"benchmark": benchmark, "score": float(right)})
    return write(path, rows)


def row(number: int, predicted: str | None) -> dict[str, Any]:
    return {"id": f"q{number}", "group": f"v{number // 4}", "answers": ["Yes"], "predicted": predicted}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def test_a_better_model_is_seen(tmp_path: Path) -> None:
    (one,) = compare([made(tmp_path / "a.jsonl", 0.4), made(tmp_path / "b.jsonl", 0.7)], spec=SPEC)["comparisons"]
    assert one["difference"] == pytest.approx(one["b"]["scores"][0] - one["a"]["scores"][0], abs=2e-6)
    assert one["ci95"][0] > 0
    assert one["p"] == one["p_holm"] < 0.05
    assert one["mcnemar"]["only_b"] - one["mcnemar"]["only_a"] == round(one["difference"] * 120)
    assert (one["questions"], one["groups"], one["seeds"], one["both"]) == (120, 30, None, None)


def test_a_file_against_itself_differs_in_nothing(tmp_path: Path) -> None:
    a = made(tmp_path / "a.jsonl", 0.4)
    (one,) = compare([a, a], spec=SPEC)["comparisons"]
    assert (one["difference"], one["ci95"], one["p"], one["mcnemar"]["p"]) == (0.0, [0.0, 0.0], 1.0, 1.0)


def test_the_order_of_lines_does_not_matter(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a.jsonl", 0.4), made(tmp_path / "b.jsonl", 0.7)
    first = compare([a, b], spec=SPEC)
    rows = b.read_text().splitlines()
    random.Random(1).shuffle(rows)
    b.write_text("\n".join(rows))
    assert compare([a, b], spec=SPEC) == first


def test_lines_of_the_stage_compare_without_scores(tmp_path: Path) -> None:
    rows = [row(i, "yes") for i in range(8)]
    stage = [{**r, "example_id": r["id"], "predicted": {"unchanged": "no", "muted": "yes"}} for r in rows]
    for one in stage:
        del one["id"]
    (one,) = compare([write(tmp_path / "a.jsonl", stage), write(tmp_path / "b.jsonl", rows)])["comparisons"]
    assert one["difference"] == 1.0


def test_several_benchmarks_are_adjusted_together(tmp_path: Path) -> None:
    for side, shares in (("a", (0.4, 0.5, 0.5)), ("b", (0.5, 0.58, 0.52))):
        for number, share in enumerate(shares):
            made(tmp_path / side / f"set{number}.jsonl", share, benchmark=f"set{number}")
    found = compare([tmp_path / "a", tmp_path / "b"], spec=SPEC)["comparisons"]
    assert [one["benchmark"] for one in found] == ["set0", "set1", "set2"]
    smallest = min(found, key=lambda one: one["p"])
    assert smallest["p_holm"] == pytest.approx(min(1.0, 3 * smallest["p"]), abs=2e-6)


def test_folders_of_one_evaluation_each_are_called_by_their_benchmark(tmp_path: Path) -> None:
    for side in "ab":
        made(tmp_path / side / "predictions.jsonl", 0.5, benchmark="msvd-qa")
    (one,) = compare([tmp_path / "a", tmp_path / "b"], spec=SPEC)["comparisons"]
    assert one["benchmark"] == "msvd-qa"


def test_several_runs_keep_seeds_apart(tmp_path: Path) -> None:
    files = [made(tmp_path / f"{side}{n}.jsonl", s, seed=n) for side, s in (("a", 0.4), ("b", 0.7)) for n in range(3)]
    (one,) = compare(files, runs=3, spec=SPEC)["comparisons"]
    assert [len(one[side]["files"]) for side in "ab"] == [3, 3]
    widths = [one[part]["ci95"][1] - one[part]["ci95"][0] for part in ("seeds", "both")]
    assert widths[0] > 0 and one["ci95"][1] - one["ci95"][0] < widths[1] * 1.5
    assert one["mcnemar"] is None


def test_the_first_is_what_others_are_compared_with(tmp_path: Path) -> None:
    files = [made(tmp_path / f"{name}.jsonl", share) for name, share in (("a", 0.4), ("b", 0.5), ("c", 0.6))]
    found = compare(files, spec=SPEC)["comparisons"]
    assert [(one["a"]["files"], one["b"]["files"]) for one in found] == [
        ([str(files[0])], [str(other)]) for other in files[1:]
    ]


def test_parts_of_a_credit_have_no_mcnemar(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [row(i, "x") | {"score": 0.25} for i in range(8)])
    b = write(tmp_path / "b.jsonl", [row(i, "x") | {"score": 0.5} for i in range(8)])
    (one,) = compare([a, b])["comparisons"]
    assert (one["difference"], one["mcnemar"]) == (0.25, None)


def refused(files: list[Path], **options: Any) -> str:
    with pytest.raises(MirasolError) as caught:
        compare(files, **options)
    return str(caught.value)


def test_other_questions_are_refused_with_counts_both_ways(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [row(i, "yes") for i in range(10)])
    b = write(tmp_path / "b.jsonl", [row(i, "yes") for i in range(3, 11)])
    message = refused([a, b])
    assert f"3 of 10 questions of {a} are not in {b}:\n  'q0'" in message
    assert f"1 of 8 questions of {b} are not in {a}:\n  'q10'" in message


def test_another_benchmark_is_refused(tmp_path: Path) -> None:
    a, b = made(tmp_path / "a.jsonl", 0.4), made(tmp_path / "b.jsonl", 0.4, benchmark="msvd-qa")
    assert "is of another benchmark: msvd-qa" in refused([a, b])


def test_other_answers_are_refused(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [row(i, "yes") for i in range(4)])
    b = write(tmp_path / "b.jsonl", [row(i, "yes") | {"answers": ["no"]} for i in range(4)])
    assert "4 questions of" in refused([a, b])


def test_bare_predictions_are_sent_to_be_scored_first(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [{"id": "q1", "predicted": "yes"}])
    message = refused([a, a])
    assert "1 line(s) cannot be compared: score the file first, `mirasol score BENCHMARK" in message
    assert "'q1': no 'group'" in message


@pytest.mark.parametrize(("score", "wrong"), [(2, "expected 0 to 1, got 2"), ("a", "expected 0 to 1, got 'a'")])
def test_scores_out_of_range_are_refused(tmp_path: Path, score: Any, wrong: str) -> None:
    a = write(tmp_path / "a.jsonl", [row(1, "yes") | {"score": score}])
    assert wrong in refused([a, a])


@pytest.mark.parametrize(("count", "runs"), [(1, 1), (3, 2), (2, 2)])
def test_files_that_do_not_pair_up_are_refused(tmp_path: Path, count: int, runs: int) -> None:
    files = [made(tmp_path / f"{n}.jsonl", 0.4) for n in range(count)]
    assert f"{count} file(s) with --runs {runs}: expected" in refused(files, runs=runs)


def test_folders_of_other_benchmarks_are_refused(tmp_path: Path) -> None:
    made(tmp_path / "a/x.jsonl", 0.4)
    made(tmp_path / "b/y.jsonl", 0.4)
    assert "do not hold predictions (*.jsonl) of the same names" in refused([tmp_path / "a", tmp_path / "b"])
    assert "name folders alone, or files alone" in refused([tmp_path / "a", tmp_path / "a/x.jsonl"])
