"""`mirasol evaluate`, `score`, `compare` and `explain`: weights to predictions, predictions to figures, differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirasol.cli.console import Json, note, print_json, table, takes
from mirasol.core.errors import MirasolError
from mirasol.core.files import write_json
from mirasol.data.conditions import Condition
from mirasol.pipeline.paths import CACHE, DATA, FINETUNE, SHARDS, TOKENIZER

if TYPE_CHECKING:
    from mirasol.tasks.score import Scored

app = typer.Typer()
SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"
FEW = 60  # source videos, below which a bootstrap over them is a little short
SHOWN_PARTS = 50  # in the table; scores.json has all
PROTOCOLS = (
    "msrvtt-qa, msvd-qa, activitynet-qa, nextqa-mc, nextqa-oe, vggsound, epic-sounds, kinetics-sounds, generic "
    "(your own questions) or world"
)
Row = tuple[str, ...]
Weights = Annotated[Path, typer.Option(help="folder of a trained model")]
WordNet = Annotated[Path, typer.Option(help="folder of WordNet's database files, for nextqa-oe")]
WORDNET = Path("/usr/share/wordnet")  # of Debian's wordnet-base


@app.command()
def evaluate(
    benchmark: Annotated[str, typer.Argument(help=f"of the questions in data: {PROTOCOLS}")] = "world",
    split: Annotated[str | None, typer.Option(help="default: val of the world, else the published one")] = None,
    weights: Weights = FINETUNE,
    data: Annotated[Path, typer.Option(help="the data folder that build/shards were made from")] = DATA,
    out: Annotated[Path, typer.Option(help="folder for scores.json and predictions.jsonl")] = Path("runs/scores"),
    wordnet: WordNet = WORDNET,
    as_json: Json = False,
) -> None:
    """Answer and score a benchmark with any weights, outside the pipeline.

    reports/eval.json stays as it is. First import the questions with `mirasol data import BENCHMARK` and pack them
    with `mirasol stage shards`. docs/evaluation.md says how each benchmark is scored.

    Example:  mirasol evaluate msrvtt-qa --weights build/finetune
    """
    from mirasol.pipeline.params.load import load_params

    if benchmark == "world":
        _conditions(split or "val", weights, data, out, as_json)
        return
    from mirasol.tasks.questions import questions_of
    from mirasol.tasks.registry import protocol_of
    from mirasol.tasks.score import check_material, score_predictions

    protocol = protocol_of(benchmark)
    questions = questions_of(protocol, data=data, split=split)
    from mirasol.evaluation.evaluate import Evaluator  # torch: needed only after all refusals

    params = load_params()
    check_material(protocol, questions, wordnet)  # before hours of answering
    evaluator = Evaluator(weights, SHARDS, TOKENIZER, params.evaluate, params.training, CACHE)
    predictions, missing = evaluator.predict(questions.asked, protocol.closed, questions.train)
    scored = score_predictions(protocol, predictions, questions, wordnet=wordnet, spec=params.evaluate)
    scored.report["missing"] = missing
    _finish(scored, out, "data folder", as_json)


@dataclass(frozen=True)
class Score:
    """Arguments and options of `mirasol score`."""

    benchmark: Annotated[str, typer.Argument(help=PROTOCOLS)]
    predictions: Annotated[Path, typer.Argument(help='lines of JSON: {"id": …, "predicted": …}')]
    annotations: Annotated[Path | None, typer.Option(help="folder with the set's own files: all is asked")] = None
    data: Annotated[Path | None, typer.Option(help="or a data folder: its manifest is asked; default data")] = None
    split: Annotated[str | None, typer.Option(help="default: the one that figures are published for")] = None
    out: Annotated[Path | None, typer.Option(help="folder for scores.json and the scored lines")] = None
    missing_wrong: Annotated[
        bool, typer.Option("--missing-wrong", help="questions without a line count wrong, instead of an error")
    ] = False
    wordnet: WordNet = WORDNET
    as_json: Json = False


@app.command()
@takes(Score)
def score(given: Score) -> None:
    """Score predictions of any model by a benchmark's protocol, without PyTorch.

    A line is like {"id": "msvd-37348", "predicted": "someone"}, with null where the video could not be read; ids are
    those of `mirasol data import`. docs/evaluation.md lists them, and says how each benchmark is scored.

    Example:  mirasol score msvd-qa predictions.jsonl --annotations ~/msvd-qa
    """
    from mirasol.tasks.questions import questions_of
    from mirasol.tasks.registry import protocol_of
    from mirasol.tasks.score import score_file

    protocol = protocol_of(given.benchmark)
    data = given.data if given.annotations or given.data else DATA
    questions = questions_of(protocol, annotations=given.annotations, data=data, split=given.split)
    scored = score_file(
        protocol, given.predictions, questions, wordnet=given.wordnet, missing_wrong=given.missing_wrong
    )
    _finish(scored, given.out, "files" if given.annotations else "data folder", given.as_json)


@app.command()
def compare(
    files: Annotated[list[Path], typer.Argument(help="scored predictions: A, then B, and more; or folders of them")],
    runs: Annotated[int, typer.Option(min=1, help="files in a row that are one recipe with different seeds")] = 1,
    out: Annotated[Path | None, typer.Option(help="a .json file for the figures")] = None,
    as_json: Json = False,
) -> None:
    """Compare models on the same questions, paired.

    Prints the difference from the first, its interval and its p-value. Folders hold a file for each benchmark.
    p (Holm) is adjusted for all comparisons made at once.

    Example:  mirasol compare runs/a/predictions.jsonl runs/b/predictions.jsonl
    """
    from mirasol.tasks.scoring.compare import compare as run_compare

    report = run_compare(files, runs=runs)
    if out:
        write_json(out, report)
    if as_json:
        print_json(report)
    else:
        _print_comparisons(report["comparisons"])
        if out:
            print(out)
    _note_few(min(one["groups"] for one in report["comparisons"]))


@app.command()
def explain(
    clip: Annotated[str, typer.Argument(help="a media file, or the key of a clip in build/shards")],
    question: Annotated[str, typer.Argument(help="in the words of the training questions")],
    weights: Weights = FINETUNE,
    out: Annotated[Path, typer.Option(help="the picture: .png, or .html with its numbers")] = Path("explain.png"),
    as_json: Json = False,
) -> None:
    """Draw which chunks, frames and sounds the model used for each token of its answer.

    Dark bars are attention over chunks. Next to them are the picture and the sound of the strongest chunk, orange
    where they raised the token. docs/evaluation.md defines the figures and their limits.

    Example:  mirasol explain clip.mp4 'which sound is heard first?' --out explained.png
    """
    from mirasol.evaluation.attribution.explain_file import explain as run_explain
    from mirasol.evaluation.evaluate import Evaluator
    from mirasol.pipeline.params.load import load_params

    params = load_params()
    training = dataclasses.replace(params.training, accelerator="cpu")
    evaluator = Evaluator(weights, SHARDS, TOKENIZER, params.evaluate, training)
    explained = run_explain(evaluator, clip, question, params.clip, out)
    tokens = list(zip(explained.pieces, explained.chunks, explained.picture, strict=True))
    if as_json:
        shares = [
            {"token": piece, "chunks": chunks.tolist(), "picture": float(picture) if chunks.sum() > 0 else None}
            for piece, chunks, picture in tokens
        ]
        print_json({"answer": explained.answer, "tokens": shares, "out": str(out)})
        return
    print(explained.answer)
    rows: list[Row] = [("token", *(f"chunk {t}" for t in range(explained.chunks.shape[1])), "picture", "sound")]
    for token, (piece, chunks, _) in enumerate(tokens):
        rows.append((piece, *(f"{share:.0%}" for share in chunks), *explained.shares(token)))
    table(rows, right=tuple(range(1, len(rows[0]))))
    print(out)


def _print_comparisons(comparisons: Sequence[Mapping[str, Any]]) -> None:
    rows: list[Row] = [("benchmark", "A", "B", "B - A", "95 % interval", "p", "p (Holm)", "over", "n", "videos")]
    for one in comparisons:
        means = [sum(one[side]["scores"]) / len(one[side]["scores"]) for side in ("a", "b")]
        names = (one["benchmark"], *(f"{value:.4f}" for value in means))
        tests = (f"{one['p']:.4f}", f"{one['p_holm']:.4f}")
        rows.append((*names, *_difference(one), *tests, "questions", f"{one['questions']:,}", f"{one['groups']:,}"))
        for over in ("seeds", "both"):
            if one[over]:
                rows.append(("", "", "", *_difference(one[over]), "", "", over, "", ""))
        if one["mcnemar"]:
            test = one["mcnemar"]
            label = f"right alone: A {test['only_a']:,}, B {test['only_b']:,}"
            rows.append(("", "", "", "", label, f"{test['p']:.4f}", "", "McNemar", "", ""))
    table(rows, right=(1, 2, 3, 5, 6, 8, 9))


def _difference(part: Mapping[str, Any]) -> Row:
    low, high = part["ci95"]
    return f"{part['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}"


def _finish(scored: Scored, out: Path | None, source: str, as_json: bool) -> None:
    """Print and write the figures; ``source`` of the questions is the set's own ``files`` or a ``data folder``."""
    from mirasol.tasks.scoring.predictions import write_predictions

    report = scored.report
    if as_json:
        print_json(report)
    else:
        _print(report)
    _notes(report, source)
    if out:
        write_predictions(out / PREDICTIONS, scored.rows)
        write_json(out / SCORES, report)
        if not as_json:
            print(out / SCORES)


def _print(report: Mapping[str, Any]) -> None:
    """The headline, its parts, the protocol's further figures, and the questions."""
    metric, asked = report["metric"], report["questions"]
    rows: list[Row] = [(f"{report['benchmark']} {report['split']}", metric, "95 % interval", "n")]
    for name, cell in (("overall", report["overall"]), *list(report["parts"].items())[:SHOWN_PARTS]):
        low, high = cell["ci95"]
        rows.append((name, f"{cell[metric]:.4f}", f"{low:.4f} to {high:.4f}", f"{cell['n']:,}"))
    table(rows, right=(1, 3))
    if len(report["parts"]) > SHOWN_PARTS:
        print(f"… and {len(report['parts']) - SHOWN_PARTS} more")
    for name, value in _further(report):
        print(f"{name}: {value}")
    of = f" of {asked['published']:,} published" if asked["published"] else ""
    videos = _number(report["overall"]["groups"], "source video")
    print(f"questions: {asked['n']:,}{of}, on {videos}, ids {asked['sha256'][:16]}")
    if "classes" in report:
        classes = report["classes"]
        of = f" of {classes['published']} published" if classes["published"] else ""
        print(f"classes: {classes['n']}{of}, list {classes['sha256'][:16]}")


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("s" if count != 1 else "")


def _notes(report: Mapping[str, Any], source: str) -> None:
    """Remarks that a reader of the figures needs."""
    asked, missing = report["questions"], report["missing"]
    if missing:
        lost = sum(m["questions"] for m in missing)
        names = ", ".join(m["media"] for m in missing[:3]) + (", …" if missing[3:] else "")
        note(f"without an answer, and so wrong: {_number(lost, 'question')} on {len(missing):,} media: {names}")
    if asked["published"] and asked["n"] != asked["published"]:
        text = f"{asked['published']:,} questions were published, these files have {asked['n']:,}"
        if source != "files" and asked["n"] < asked["published"]:
            text = (
                f"{asked['published'] - asked['n']:,} published questions were not asked: the figure of all is that of "
                f"`mirasol score {report['benchmark']} … --annotations FOLDER --split {asked['split']} --missing-wrong`"
            )
        note(text)
    _note_few(report["overall"]["groups"])


def _note_few(groups: int) -> None:
    if groups < FEW:
        videos = _number(groups, "source video")
        note(f"{videos}: with fewer than about {FEW}, read intervals as too short (decision 0014)")


def _further(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The protocol's own figures; those of an object by their names."""
    known = {"benchmark", "source", "split", "metric", "normaliser", "overall", "parts", "questions", "missing"}
    found: list[tuple[str, str]] = []
    for name, value in report.items():
        if name in known | {"classes", "report"} or value is None:
            continue
        if isinstance(value, dict):
            inner = [(key, v) for key, v in value.items() if v is not None]
            found += [(f"{name} {key}", _short(v)) for key, v in inner]
        else:
            found.append((name, _short(value)))
    return found


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(v)}" for key, v in value.items())
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


def _conditions(split: str, weights: Path, data: Path, out: Path, as_json: bool) -> None:
    """The built-in world: families by condition, with chance."""
    if split not in ("val", "test"):
        raise MirasolError(f"--split {split}: expected val or test")
    from mirasol.evaluation.evaluate import Evaluator
    from mirasol.pipeline.params.load import load_params

    params = load_params()
    spec = dataclasses.replace(params.evaluate, split=split)
    report = Evaluator(weights, SHARDS, TOKENIZER, spec, params.training, CACHE).evaluate(data, out)
    write_json(out / SCORES, report)
    if as_json:
        print_json(report)
        return
    conditions = list(Condition)[1:]
    rows: list[Row] = [("", "exact match", "95 % interval", "chance", *conditions, "n")]
    for name in ("overall", *report["families"]):
        full, *others = (_cell(part, name) for part in (report, *(report[c] for c in conditions)))
        low, high = full["ci95"]
        right, *left = (f"{cell['exact_match']:.3f}" for cell in (full, *others))
        interval, chance = f"{low:.3f} to {high:.3f}", f"{full['chance']:.3f}"
        rows.append((name, right, interval, chance, *left, f"{full['n']:,}"))
    table(rows, right=tuple(range(1, 9)))
    print(out / SCORES)


def _cell(part: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = part["overall"] if name == "overall" else part["families"][name]
    return found
