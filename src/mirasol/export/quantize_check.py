"""Make bundles of lower precision, and keep each only if it answers as well as float32."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mirasol.core.files import sha256_file, write_json
from mirasol.core.progress import Progress
from mirasol.data.conditions import Condition
from mirasol.data.loading.dataset import ShardDataset
from mirasol.data.manifest import UNLABELLED
from mirasol.data.shards.format import DamagedClip
from mirasol.export.bundle import CARD_FILE, read_scores, replace_folder
from mirasol.export.config import ExportSpec
from mirasol.export.model_card import model_card
from mirasol.export.parity import chunk_inputs, clip_batch
from mirasol.export.quantize import Feeds, lower, precisions_of
from mirasol.media.clip import View
from mirasol.runtime.backends import NoKernelError
from mirasol.runtime.contract import (
    AUDIO,
    CONTRACT_FILE,
    ENCODER_COMBINER,
    GRAPHS,
    LATENT,
    NOT_SHIPPED,
    TEXT,
    Contract,
)
from mirasol.runtime.engine import Engine
from mirasol.runtime.features import Inputs
from mirasol.runtime.session import Session

Correct = Callable[[str | None, Iterable[str]], bool]

CALIBRATION_CLIPS = 16
MEASURED = 1e6  # relative difference allowed while it is measured: right answers decide, not this


def export_precisions(
    bundle: str | Path,
    shards: str | Path,
    spec: ExportSpec,
    *,
    split: str,
    correct: Correct,
    evaluation: str | Path | None = None,
) -> dict[str, Any]:
    """Make ``bundle``/NAME for every name in ``spec.precisions``, and score all on clips of ``split``.

    Each folder is a complete bundle with the golden tensors and tokenizer of the float32 one. A bundle that loses more
    than ``spec.max_loss`` is removed.

    Args:
        bundle: the folder that :func:`mirasol.export.bundle.export_bundle` wrote.
        shards: clips for calibration (`train`) and for questions (``split``).
        spec: precisions, number of clips and the allowed loss.
        split: the split of the questions.
        correct: whether a prediction counts as one of the answers.
        evaluation: for the model cards.

    Returns:
        By precision: ``exact_match``, ``agreement`` (answers equal to float32's), ``bytes`` of its graphs,
        ``golden`` (relative difference to torch), ``shipped`` and, if False, the reason ``not_shipped``; ``float32``
        first. No time: equal runs report the same. The reasons also go to ``bundle``/not_shipped.json, for the loader.
        Empty without precisions. If no engine of this machine can compute a precision (bfloat16 without a GPU),
        ``shipped`` is False and ``not_measured`` gives the reason.

    Raises:
        MirasolError: an unknown precision, or the bundle or the shards cannot be used.
    """
    names, bundle = precisions_of(spec), Path(bundle)
    if not names:
        return {}
    full = Engine(bundle, threads=1)
    (bundle / NOT_SHIPPED).unlink(missing_ok=True)
    clip = full.contract.clip
    view = View(clip.size, clip.chunks, clip.frames_per_chunk)
    clips = _asked(ShardDataset(shards, split, view=view), spec.clips)
    feeds: dict[str, Feeds] = {graph: [] for graph in GRAPHS}
    if "qdq" in names:
        feeds = _calibration(full, ShardDataset(shards, "train", view=view))
    expected = _answers(full, clips)
    report = {"float32": _score(expected, expected, clips, correct) | {"bytes": _bytes(full.contract, bundle)}}
    with Progress("precisions", len(names), "bundles") as progress:
        for name in names:
            try:
                folder, golden = _make(bundle, full.contract, name, feeds, evaluation)
            except NoKernelError as error:  # not measured, so not shipped
                shutil.rmtree(bundle / name, ignore_errors=True)
                why = f"this machine cannot compute it: {error.reason}"
                report[name] = {"shipped": False, "not_measured": error.reason, "not_shipped": why}
                progress.advance(precision=name)
                continue
            engine = Engine(folder, threads=1)
            row = _score(_answers(engine, clips), expected, clips, correct)
            loss = report["float32"]["exact_match"] - row["exact_match"]
            shipped = loss <= spec.max_loss
            report[name] = row | {
                "bytes": _bytes(engine.contract, folder),
                "golden": golden,
                "shipped": shipped,
            }
            if not shipped:
                report[name]["not_shipped"] = (
                    f"loses {100 * loss:.1f} points of exact match against float32 on {row['answers']} questions, "
                    f"more than the {100 * spec.max_loss:g} of export.max_loss"
                )
                shutil.rmtree(folder)
            progress.advance(precision=name, exact_match=row["exact_match"])
    if reasons := {name: row["not_shipped"] for name, row in report.items() if "not_shipped" in row}:
        write_json(bundle / NOT_SHIPPED, reasons)
    return report


Questions = list[tuple[str, list[str]]]  # a question and its accepted answers
Asked = list[tuple[list[Inputs], Questions]]


def _asked(shards: ShardDataset, count: int) -> Asked:
    """Clips with texts, spread over the split, with their questions, or with all prompts if they have no question."""
    asked = []
    known = [number for number in range(len(shards)) if _has_texts(shards, number)]
    for place in np.unique(np.linspace(0, len(known) - 1, min(count, len(known))).round().astype(int)):
        number = known[place]
        clip = shards.read(int(number))
        examples = clip.meta["examples"]
        questions = [example for example in examples if example["task"] == "qa"] or examples
        asked.append((list(_chunks(clip, shards)), [(e["prompt"], e["answers"]) for e in questions]))
    return asked


def _has_texts(shards: ShardDataset, number: int) -> bool:
    with contextlib.suppress(DamagedClip):
        return any(example["task"] != UNLABELLED for example in shards.meta(number)["examples"])
    return True  # if it is chosen, reading it says what is damaged


def _chunks(clip: Any, shards: ShardDataset) -> Iterator[Inputs]:
    batch = clip_batch(clip, shards.spec, Condition.unchanged)
    assert batch is not None  # only other conditions return None
    for t in range(batch.video.shape[1]):
        yield chunk_inputs(batch, t)


def _calibration(engine: Engine, shards: ShardDataset) -> dict[str, Feeds]:
    """Inputs of each graph along clips of the training split, with their prompts and answers."""
    feeds: dict[str, Feeds] = {graph: [] for graph in GRAPHS}
    for chunks, questions in _asked(shards, CALIBRATION_CLIPS):
        session = Session(engine)
        states, latent = engine.initial(ENCODER_COMBINER), engine.initial(LATENT)
        for chunk in chunks:
            flags = {
                name: np.array([value])
                for name, value in (("video_present", chunk.video_present), ("audio_present", chunk.audio_present))
            }
            feeds[ENCODER_COMBINER].append({"video": chunk.video, "audio": chunk.audio, **flags, **states})
            x, states = engine.encoder_combiner(
                chunk.video, chunk.audio, chunk.video_present, chunk.audio_present, states
            )
            feeds[LATENT].append({"x": x, **latent})
            _, latent = engine.latent(x, latent)
            session.push_features(chunk)
        memory, valid = session.memory
        question, answers = questions[0]
        cache = engine.initial(TEXT)
        ids = engine.tokenizer.text_ids(question, answers[0])[: engine.contract.model.max_text]
        for token in ids:
            inputs = {"token": np.array([token], np.int64), "memory": memory, "memory_valid": valid}
            feeds[TEXT].append({**inputs, **cache})
            _, cache = engine.text(token, memory, valid, cache)
    return feeds


def _make(
    bundle: Path, full: Contract, precision: str, feeds: dict[str, Feeds], evaluation: str | Path | None
) -> tuple[Path, float]:
    """Make the bundle of one precision; returns its folder and the golden difference to torch."""
    temporary, out = Path(tempfile.mkdtemp(dir=bundle, prefix=f".{precision}.")), bundle / precision
    try:
        for name, graph in full.graphs.items():
            if name == AUDIO:
                shutil.copyfile(bundle / graph.file, temporary / graph.file)
            else:
                lower(precision, bundle / graph.file, temporary / graph.file, feeds[name])
        for file in (full.tokenizer.file, full.golden.file, full.licence):
            shutil.copyfile(bundle / file, temporary / file)
        contract = dataclasses.replace(
            full,
            model=dataclasses.replace(full.model, precision=precision),
            opsets={str(full.opset): full.opsets[str(full.opset)]},
            golden=dataclasses.replace(full.golden, tolerance=MEASURED),
        )
        card = model_card(contract, read_scores(evaluation))
        (temporary / CARD_FILE).write_text(card, encoding="utf-8")
        files = {file.name: sha256_file(file) for file in sorted(temporary.iterdir())}
        contract = dataclasses.replace(contract, files=files)
        (temporary / CONTRACT_FILE).write_text(contract.to_json(), encoding="utf-8")
        golden = Engine(temporary, threads=1).check_golden()
        # another processor rounds differently: twice this difference, in two digits
        tolerance = float(f"{2 * golden:.1e}")
        contract = dataclasses.replace(contract, golden=dataclasses.replace(contract.golden, tolerance=tolerance))
        (temporary / CONTRACT_FILE).write_text(contract.to_json(), encoding="utf-8")
        temporary.chmod(0o755)
        replace_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out, float(f"{golden:.3g}")


def _answers(engine: Engine, clips: Asked) -> list[list[str]]:
    answers = []
    for chunks, questions in clips:
        session = Session(engine)
        for chunk in chunks:
            session.push_features(chunk)
        answers.append([session.ask(question).text for question, _ in questions])
    return answers


def _score(found: list[list[str]], expected: list[list[str]], clips: Asked, correct: Correct) -> dict[str, Any]:
    rows = [
        (answer, of_float32, truth)
        for answers, others, (_, questions) in zip(found, expected, clips, strict=True)
        for answer, of_float32, (_, truth) in zip(answers, others, questions, strict=True)
    ]
    return {
        "answers": len(rows),
        "exact_match": sum(correct(answer, truth) for answer, _, truth in rows) / len(rows),
        "agreement": sum(answer == other for answer, other, _ in rows) / len(rows),
    }


def _bytes(contract: Contract, folder: Path) -> int:
    graphs = {graph.file for graph in contract.graphs.values()}
    return sum((folder / file).stat().st_size for file in contract.files if file.removesuffix(".data") in graphs)
