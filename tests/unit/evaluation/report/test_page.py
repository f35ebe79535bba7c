from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support.reporting import finish, page_of, wrong_now_and_then

from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.evaluation.report.answers import choose, is_right
from mirasol.evaluation.report.page import markdown, write_report

SECTIONS = ("data", "training", "families", "modalities", "paper", "ablations", "gallery", "stream", "origin")
LIMIT = 5_000_000


@pytest.fixture
def finished(project: Path) -> Path:
    """A project whose stages have all run, without its weights: pages are quicker without attribution."""
    shutil.rmtree(project / "build/finetune")
    return finish(project)


def test_all_sections_are_there(finished: Path) -> None:
    page, _ = page_of(finished)
    assert set(SECTIONS) <= page.ids


def test_nothing_is_missing_after_all_stages(finished: Path) -> None:
    _, text = page_of(finished)
    missing = re.findall(r'<p class="missing">(.*?)</p>', text)
    assert [note for note in missing if "dvc repro" in note] == []


def test_the_page_needs_no_other_file(finished: Path) -> None:
    page, text = page_of(finished)
    assert all(reference.startswith("#") for reference in page.references)
    assert all(address.startswith("data:") for address in re.findall(r'url\("?([^")]*)', text))
    assert "@import" not in text
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", text)


def test_the_page_is_small(finished: Path) -> None:
    assert write_report(finished, finished / "build/report").stat().st_size < LIMIT


def test_headline_figures_are_shown(finished: Path) -> None:
    page, _ = page_of(finished)
    report = json.loads((finished / "build/reports/eval.json").read_text())
    assert f"{100 * report['overall']['exact_match']:.1f}".removesuffix(".0") in page.text
    assert "28.4×" in page.text  # the slowest
    assert "3e-6" in page.text
    assert "0123abcd.dir" in page.text


def test_what_needs_what_is_shown_for_each_family_and_condition(finished: Path) -> None:
    page, _ = page_of(finished)
    report = json.loads((finished / "build/reports/eval.json").read_text())
    found = [cell["found"] or "not judged" for row in report["matters"].values() for cell in row.values()]
    table = page.text.split("What needs what")[1]
    assert {words: table.count(words) for words in set(found)} == {words: found.count(words) for words in set(found)}


def test_speed_is_drawn_where_the_run_is_still_there(finished: Path) -> None:
    before, _ = page_of(finished)
    lines = [{"step": step, "clips_per_second": 30.0, "wait_share": 0.25} for step in range(10, 100, 10)]
    (finished / "runs/finetune").mkdir(parents=True, exist_ok=True)
    (finished / "runs/finetune/speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    after, _ = page_of(finished)
    assert "waiting for data" not in before.text
    assert "waiting for data" in after.text and "clips per second" in after.text


def test_texts_are_escaped(finished: Path) -> None:
    page, text = page_of(finished)
    assert "nonsense <b>" in page.text
    assert "nonsense <b>" not in text


def test_the_gallery_shows_right_and_wrong_answers(finished: Path) -> None:
    page, _ = page_of(finished)
    assert page.classes.count("answer") == 6
    assert page.classes.count("wrong") == 3
    assert page.classes.count("right") == 3


def test_pictures_of_clips_are_inside(finished: Path) -> None:
    _, text = page_of(finished)
    assert text.count("data:image/png;base64,") >= 12


def test_equal_projects_give_equal_pages(finished: Path) -> None:
    assert page_of(finished)[1] == page_of(finished)[1]


def test_an_empty_folder_gives_a_page_of_notes(tmp_path: Path) -> None:
    page, text = page_of(tmp_path)
    assert set(SECTIONS) <= page.ids
    for command in ("evaluate", "export", "benchmark", "shards", "pretrain", "audio_pretrain", "finetune"):
        assert f"<b>not run yet</b>: <code>dvc repro {command}</code>" in text


def test_a_skipped_phase_says_why(finished: Path) -> None:
    (finished / "build/pretrain/curves.jsonl").write_text("")
    write_json(finished / "build/reports/pretrain.json", {"steps": 0, "skipped": "no training example of task caption"})
    page, _ = page_of(finished)
    assert "no training example of task caption" in page.text


@pytest.mark.parametrize(
    "broken",
    [
        "build/reports/eval.json",
        "runs/latency.json",
        "build/reports/parity.json",
        "build/reports/shards.json",
        "build/finetune/curves.jsonl",
        "build/evaluate/predictions.jsonl",
        "build/shards/shards.json",
        "params.yaml",
        "data.dvc",
    ],
)
@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"overall": 3}', "\x00\x01"])
def test_a_broken_file_never_breaks_the_page(finished: Path, broken: str, content: str) -> None:
    (finished / broken).write_text(content)
    page, _ = page_of(finished)
    assert set(SECTIONS) <= page.ids


def test_lost_shards_leave_a_note(finished: Path) -> None:
    shutil.rmtree(finished / "build/shards")
    _, text = page_of(finished)
    assert "<b>not here</b>: <code>dvc checkout</code>" in text


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MirasolError, match="no such folder"):
        write_report(tmp_path / "nowhere", tmp_path / "out")


def test_wrong_answers_fill_at_most_half_and_clips_do_not_repeat(finished: Path) -> None:
    rows = wrong_now_and_then(finished)
    chosen = choose(rows, 8, lambda _: True)
    assert len({row["clip"] for row in chosen}) == len(chosen) == 8
    assert [is_right(row) for row in chosen] == [False] * 4 + [True] * 4


def test_markdown_names_every_family(finished: Path) -> None:
    text = markdown(finished)
    report = json.loads((finished / "build/reports/eval.json").read_text())
    assert all(f"| {name} |" in text for name in report["families"])
    assert "exact match" in text


def test_markdown_of_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    assert "dvc repro evaluate" in markdown(tmp_path)


def test_data_that_were_imported_are_summed_up(finished: Path) -> None:
    (finished / "data/families.json").unlink()
    summary = {
        "set": "msrvtt-qa",
        "groups": 7010,
        "tasks": {"qa": 158581},
        "answers": {"distinct": 5711, "known_from_train": {"test": 0.93}},
        "media_without_audio": ["a.mp4"],
    }
    write_json(finished / "data/import.json", summary)
    page, _ = page_of(finished)
    assert "set msrvtt-qa" in page.text
    assert "media without sound 1" in page.text
    assert "ours msrvtt-qa," in page.text  # in Table 1 of the paper


@pytest.fixture
def own(finished: Path) -> Path:
    """A project on own data, whose first phase found nothing to learn from."""
    (finished / "data/families.json").unlink()
    write_json(finished / "data/import.json", {"set": "generic", "media": 12})
    (finished / "build/pretrain/curves.jsonl").unlink()
    return finished


def test_own_data_get_no_section_about_the_paper(own: Path) -> None:
    page, text = page_of(own)
    assert not {"paper", "ablations"} & page.ids
    assert "not comparable" not in text


def test_own_data_get_no_empty_curve(own: Path) -> None:
    (own / "build/finetune/curves.jsonl").write_text('{"step": 10, "text": 1.0}\n')
    page, _ = page_of(own)
    assert page.classes.count("phase") == 1  # audio_pretrain's


def test_the_result_and_its_examples_come_before_the_details(finished: Path) -> None:
    _, text = page_of(finished)
    order = ["<h1>", 'id="gallery"', 'id="families"', 'id="mistakes"', 'id="training"', 'id="modalities"', 'id="data"']
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_mistakes_are_counted_by_family(finished: Path) -> None:
    page, _ = page_of(finished)
    wrong = sum(not is_right(row) for row in wrong_now_and_then(finished))
    assert f"{wrong} of " in page.text.split("Where it fails")[1]


def test_baselines_and_their_verdict_are_beside_the_result(finished: Path) -> None:
    report = json.loads((finished / "build/reports/eval.json").read_text())
    cell = {"exact_match": 0.417, "ci95": [0.3, 0.5]}
    report["baselines"] = {"overall": {"majority": cell}, "verdict": "the model adds nothing"}
    write_json(finished / "build/reports/eval.json", report)
    top = page_of(finished)[0].text.split("What it saw")[0]
    assert "41.7" in top and "the model adds nothing" in top


def test_too_few_clips_give_no_headline(finished: Path) -> None:
    report = json.loads((finished / "build/reports/eval.json").read_text())
    report["baselines"] = {"headline": {"enough": False, "why": "4 clips, 30 needed"}}
    write_json(finished / "build/reports/eval.json", report)
    page, text = page_of(finished)
    assert "<h1>Too few clips for a score</h1>" in text and "4 clips, 30 needed" in page.text


def test_figures_of_the_bundle_are_named_in_words(finished: Path) -> None:
    write_json(finished / "build/reports/parity.json", {"max_relative": 3e-6, "h": 5.7e-7, "ties": 0})
    page, _ = page_of(finished)
    assert "of the latent features 5.7e-7" in page.text
    assert "ties 0" not in page.text
