"""A finished project for tests of the report, and its page taken apart."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mirasol.core.files import write_json
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.manifest import clips_of, read_manifest
from mirasol.evaluation.attribution.attribute import attribute
from mirasol.evaluation.report.page import write_report
from mirasol.tasks.scoring.config import EvaluateSpec
from mirasol.tasks.scoring.metrics import Constant, read_families, score
from mirasol.tokenizer import Tokenizer
from mirasol.training.weights import load_model

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """The parts of a page that tests check; unbalanced tags fail while it is fed."""

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
                assert value not in self.ids, f"id {value} occurs twice"
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
            said = {"muted": "bell", "blanked": "red", "swapped": None}
            right = e.answers[0] if len(rows) % 9 else "nonsense <b>"
            rows.append(
                {
                    "example_id": e.id,
                    "clip": clip.key,
                    "group": e.group,
                    "family": e.family,
                    "prompt": e.prompt,
                    "answers": list(e.answers),
                    "predicted": {"unchanged": right, **said, "shuffled": right},
                }
            )
    return rows


def finish(project: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    """Make ``project`` one whose stages have all run, with predictions ``rows``."""
    rows = wrong_now_and_then(project) if rows is None else rows
    (project / "build/evaluate").mkdir()
    (project / "build/evaluate/predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = score(rows, read_families(project / "data"), Constant({}, ""), resamples=100, seed=1)
    write_json(project / "build/reports/eval.json", report | {"split": "test", "missing": []})
    write_json(project / "build/reports/parity.json", {"max_relative": 3e-6})
    write_json(project / "runs/latency.json", {"realtime": {"median": 31.0, "worst": 28.4}, "step_ms": {"text": 1.2}})
    write_json(project / "build/reports/shards.json", {"splits": {"train": 8, "val": 4, "test": 12}, "rejected": 0})
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
    """The report of ``project``, parsed and as text."""
    text = write_report(project, project / "build/report").read_text(encoding="utf-8")
    return Page(text), text


def looked_rows(project: Path, count: int = 6) -> list[dict[str, Any]]:
    """Predictions of the model in ``build/finetune``, every second one made right by its reference."""
    model = load_model(project / "build/finetune").eval()
    words = Tokenizer.load(project / "build/tokenizer/tokenizer.json")
    shards = ShardDataset(project / "build/shards", "test")
    rows, clips = [], set()
    for row in wrong_now_and_then(project):
        if row["clip"] not in clips and len(rows) < count:
            clips.add(row["clip"])
            clip = shards.arrays(shards.keys.index(row["clip"]))
            answer = attribute(model, words, clip, shards.spec, row["prompt"], EvaluateSpec().max_answer).answer
            answers = [answer] if len(rows) % 2 else row["answers"]
            rows.append(row | {"answers": answers, "predicted": row["predicted"] | {"unchanged": answer}})
    return rows


BENCHMARKS: dict[str, Any] = {
    "msrvtt-qa": {
        "benchmark": "msrvtt-qa",
        "metric": "exact_match",
        "overall": {"exact_match": 0.4123, "ci95": [0.401, 0.4233], "n": 72821},
        "parts": {"what": {"exact_match": 0.31, "ci95": [0.3, 0.32], "n": 49869}},
        "questions": {"n": 72821, "published": 72821},
        "missing": ["video7010"],
    },
    "nextqa-oe": {"benchmark": "nextqa-oe", "headline": {"metric": "wups", "value": 25.3, "ci95": [24.1, 26.2]}},
    "vggsound": {"headline": {"metric": "top1", "value": 0.31, "n": 100}, "questions": {"published": 15446}},
    "msvd-qa": {"headline": {"metric": "exact_match", "value": 0.3, "ci95": [0.28, 0.32], "n": 13157}},
}


def ablation_row(name: str, score: float, against: tuple[float, str] | None = None) -> dict[str, Any]:
    """A row as `mirasol ablate` writes it, held against the baseline with a difference and a verdict."""
    row: dict[str, Any] = {"row": name, "paper": 43.2, "score": {"mean": score, "ci95": [score - 2, score + 2]}}
    if against:
        difference = {"mean": against[0], "ci95": [against[0] - 3, against[0] + 3]}
        row["against"] = {"row": "baseline", "paper": 1.7, "difference": difference, "verdict": against[1]}
    return row


ABLATIONS: dict[str, Any] = {
    "5a": {
        "table": "5a",
        "rows": [
            ablation_row("baseline", 53.0),
            ablation_row("+ AR", 70.1, (17.1, "same direction")),
            ablation_row("+ <b>", 40.0, (-13.0, "opposite")),
        ],
    },
    "longer": {
        "table": "longer",
        "title": "Looked into",
        "rows": [ablation_row("TTM", 61.0, (8.0, "same direction"))],
    },
}


def write_benchmarks(project: Path) -> Path:
    """Put reports of published sets and of an ablation into ``project``."""
    (project / "runs/workspaces/ablations").mkdir(parents=True, exist_ok=True)
    for folder, reports in (("benchmarks", BENCHMARKS), ("ablations", ABLATIONS)):
        (project / "reports" / folder).mkdir(parents=True, exist_ok=True)
        for name, report in reports.items():
            write_json(project / "reports" / folder / f"{name}.json", report)
    return project
