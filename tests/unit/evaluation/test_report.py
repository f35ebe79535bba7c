from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.data.manifest import clips_of, read_manifest
from mirasol.evaluation.evaluate import read_families
from mirasol.evaluation.metrics import Constant, score
from mirasol.evaluation.report import markdown, write_report
from mirasol.evaluation.report_answers import choose, is_right

SECTIONS = ("data", "training", "families", "modalities", "gallery", "stream", "origin")
VOID = {"meta", "br", "img", "input", "link", "hr"}
LIMIT = 5_000_000


class Page(HTMLParser):
    """What a test asks of a page; unbalanced tags fail while it is fed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.classes: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                assert value not in self.ids, f"id {value} stands twice"
                self.ids.add(value or "")
            if name == "class":
                self.classes += (value or "").split()
            if name in ("src", "href", "action", "poster", "srcset"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def wrong_now_and_then(project: Path) -> list[dict[str, Any]]:
    """Predictions of a model that errs in every ninth answer."""
    examples = read_manifest(project / "data/manifest.jsonl")
    rows = []
    for clip in clips_of(e for e in examples if e.split == "test" and e.task == "qa"):
        for e in clip.examples:
            right = e.answers[0] if len(rows) % 9 else "nonsense <b>"
            rows.append(
                {
                    "example_id": e.id,
                    "clip": clip.key,
                    "group": e.group,
                    "family": e.family,
                    "prompt": e.prompt,
                    "answers": list(e.answers),
                    "predicted": {"full": right, "muted": "bell", "blanked": "red", "swapped": None},
                }
            )
    return rows


@pytest.fixture
def finished(project: Path) -> Path:
    """A project whose stages have all run."""
    rows = wrong_now_and_then(project)
    (project / "build/evaluate").mkdir()
    (project / "build/evaluate/predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = score(rows, read_families(project / "data"), Constant({}, ""), resamples=100, seed=1)
    write_json(project / "reports/eval.json", report | {"split": "test", "missing": []})
    write_json(project / "reports/parity.json", {"max_relative": 3e-6})
    write_json(
        project / "reports/latency.json", {"realtime": {"median": 31.0, "worst": 28.4}, "step_ms": {"text": 1.2}}
    )
    write_json(project / "reports/shards.json", {"splits": {"train": 8, "val": 4, "test": 12}, "rejected": 0})
    for phase in ("pretrain", "audio_pretrain", "finetune"):
        lines = [{"step": s, "text": 3 / s, "latent": 0.1, "video": float("nan")} for s in range(10, 100, 10)]
        lines[-1]["val"] = {"exact_match": 0.5, "families": {"colour": {"exact_match": 0.4, "n": 5}}}
        path = project / "build" / phase / "curves.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (project / "params.yaml").write_text("evaluate:\n  split: test\n  gallery: 6\nfinetune:\n  lr: 1e-3\n")
    (project / "data.dvc").write_text("outs:\n- md5: 0123abcd.dir\n  size: 5000000\n  nfiles: 26\n  path: data\n")
    return project


def page_of(project: Path) -> tuple[Page, str]:
    text = write_report(project, project / "build/report").read_text(encoding="utf-8")
    return Page(text), text


def test_all_sections_are_there(finished: Path) -> None:
    page, _ = page_of(finished)
    assert set(SECTIONS) <= page.ids


def test_nothing_is_missing_after_all_stages(finished: Path) -> None:
    _, text = page_of(finished)
    missing = re.findall(r'<p class="missing">(.*?)</p>', text)
    assert [m for m in missing if "Commit" not in m] == []


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
    report = json.loads((finished / "reports/eval.json").read_text())
    assert f"{100 * report['overall']['exact_match']:.1f}".removesuffix(".0") in page.text
    assert "28.4×" in page.text  # the slowest
    assert "3e-6" in page.text
    assert "0123abcd.dir" in page.text


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
    write_json(finished / "reports/pretrain.json", {"steps": 0, "skipped": "no training example of task caption"})
    page, _ = page_of(finished)
    assert "no training example of task caption" in page.text


@pytest.mark.parametrize(
    "broken",
    [
        "reports/eval.json",
        "reports/latency.json",
        "reports/parity.json",
        "reports/shards.json",
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
    report = json.loads((finished / "reports/eval.json").read_text())
    assert all(f"| {name} |" in text for name in report["families"])
    assert "exact match" in text


def test_markdown_of_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    assert "dvc repro evaluate" in markdown(tmp_path)


CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=2000",
)
# Written by the page itself: wider than the window means that a phone would scroll sideways.
PROBE = """<script>addEventListener("error", (e) => { document.title = "error " + e.message; });
addEventListener("load", () => { if (!document.title.startsWith("error")) document.title =
"width " + document.documentElement.scrollWidth + " of " + innerWidth; });</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_errors_or_scrolling_sideways(finished: Path, tmp_path: Path, width: int) -> None:
    path = write_report(finished, finished / "build/report")
    # Headless windows are at least 500 px wide; a frame can be as narrow as a phone.
    text = path.read_text(encoding="utf-8").replace("<style>", PROBE + "<style>", 1)
    path.write_text(text, encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><iframe src="{path.as_uri()}" style="width:{width}px;height:800px;border:0" '
        "onload=\"document.title=this.contentDocument?this.contentDocument.title:'no access'\"></iframe>"
    )
    command = [str(CHROMIUM), *FLAGS, "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={max(width, 500) + 40},900", "--dump-dom", frame.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None, dom[:500]
    assert found[1] == f"width {width} of {width}"
