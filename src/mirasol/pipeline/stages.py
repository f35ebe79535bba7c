"""The pipeline as one page: each stage of dvc.yaml reads parameters, calls one package and writes metrics.

`mirasol stage NAME` runs them (:mod:`mirasol.pipeline.run_stage`). Each imports inside its function: a stage
without torch starts without it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirasol.core.errors import MirasolError, listing
from mirasol.core.files import write_json
from mirasol.core.machine import processor
from mirasol.pipeline import paths
from mirasol.pipeline.params.checks import PHASES
from mirasol.pipeline.params.schema import Params

if TYPE_CHECKING:
    from mirasol.model.config import ModelConfig
    from mirasol.training.config import PhaseConfig


OF_A_RUN = ("seconds", "clips_per_second", "reused", "sent")  # differ between runs that make equal shards


def params(params: Params) -> None:
    """Refuse wrong parameters and splits before DVC deletes an output: params.yaml -> build/params.json, always equal.

    The first stage, on which all others depend: it runs for each change of params.yaml, and because its output does
    not change, no stage follows for that reason alone.
    """
    check_mixes(params)
    check_manifest(params)
    write_json(paths.PARAMS, {"valid": True})


def tokenizer(params: Params) -> None:
    """Texts of the training split only -> build/tokenizer; of clips without any text the usual prompts."""
    from mirasol.data.manifest import AUDIO_PROMPT, CAPTION_PROMPT, CLASSIFY_PROMPT, UNLABELLED, read_manifest
    from mirasol.tokenizer import train_tokenizer

    examples = read_manifest(paths.DATA / "manifest.jsonl")
    texts = [text for e in examples if e.split == "train" for text in (e.prompt, *e.answers)]
    if all(e.task == UNLABELLED for e in examples):
        texts = [CAPTION_PROMPT, AUDIO_PROMPT, CLASSIFY_PROMPT]
    facts = train_tokenizer(texts, params.tokenizer, paths.TOKENIZER)
    print(f"[tokenizer] {facts['vocabulary']} pieces from {facts['texts']:,} texts", flush=True)


def shards(params: Params) -> None:
    """data/ -> tars of clips cut into chunks in build/shards, counts in build/reports/shards.json."""
    from mirasol.data.shards.build import build_shards

    report = build_shards(paths.DATA, paths.SHARDS, params.clip, params.shards, cache=paths.PARTS)
    write_json(paths.REPORTS / "shards.json", {k: v for k, v in report.items() if k not in OF_A_RUN})
    split = params.evaluate.split
    if not report["splits"].get(split):  # warn before hours of training: evaluate refuses an empty split
        print(f"[shards] the split {split} (evaluate.split) has no clip: evaluate will refuse it", file=sys.stderr)


def pretrain(params: Params) -> None:
    """Captions (S 4) from `training.init` or random weights -> build/pretrain."""
    train_phase("pretrain", params, None)


def audio_pretrain(params: Params) -> None:
    """Names of sounds (S 4) from the weights of `pretrain` -> build/audio_pretrain."""
    train_phase("audio_pretrain", params, paths.PRETRAIN)


def finetune(params: Params) -> None:
    """Questions and answers (S 4) from the weights of `audio_pretrain` -> build/finetune."""
    train_phase("finetune", params, paths.AUDIO_PRETRAIN)


def evaluate(params: Params) -> None:
    """Score clips, whole and with a part taken away, next to what a plain model answers -> reports: eval.json."""
    from mirasol.data.manifest import read_manifest
    from mirasol.evaluation.baselines import Sources, baselines
    from mirasol.evaluation.evaluate import PREDICTIONS, Evaluator
    from mirasol.pipeline.facts import data_of
    from mirasol.tasks.scoring.predictions import read_predictions

    evaluator = Evaluator(paths.FINETUNE, paths.SHARDS, paths.TOKENIZER, params.evaluate, params.training, paths.CACHE)
    report = evaluator.evaluate(paths.DATA, paths.EVALUATE)
    rows = [one.row for one in read_predictions(paths.EVALUATE / PREDICTIONS)]
    sources = Sources(paths.SHARDS, paths.CACHE)
    found = baselines(rows, read_manifest(paths.DATA / "manifest.jsonl"), sources, params.evaluate)
    write_json(
        paths.REPORTS / "eval.json",
        report | {"data": data_of(paths.DATA), "baselines": found, "made_on": made_on(params)},
    )
    print("\n".join(f"[evaluate] {text}" for text in (found["verdict"], found["headline"]["why"]) if text), flush=True)


def export(params: Params) -> None:
    """The finetuned model -> ONNX graphs in build/bundle, compared with torch in build/reports/parity.json."""
    from mirasol.data.loading.view import view_of
    from mirasol.export.bundle import TrainedModel, export_bundle
    from mirasol.export.parity import check_parity, require_parity
    from mirasol.export.prompts import learnt_prompts
    from mirasol.export.quantize import precisions_of
    from mirasol.export.quantize_check import export_precisions
    from mirasol.tasks.scoring.normalise import exact_match
    from mirasol.training.weights import load_model

    precisions_of(params.export)  # refuse a wrong name before hours of export
    model, limit, split = load_model(paths.FINETUNE), params.evaluate.max_answer, params.evaluate.split
    scores = paths.REPORTS / "eval.json"
    clip, prompts = view_of(model.config).of(params.clip), learnt_prompts(paths.SHARDS)
    # a caption is longer than the answers that are scored: the model ends its answers itself
    trained = TrainedModel(model, clip, paths.TOKENIZER, model.config.max_text, prompts)
    export_bundle(trained, paths.BUNDLE, params.export, evaluation=scores)
    report = check_parity(model, paths.BUNDLE, paths.SHARDS, params.export, split=split, max_answer=limit)
    write_json(paths.REPORTS / "parity.json", report)
    require_parity(report)
    del model, trained  # a large model fills half of the memory that its lower precisions need
    report["precisions"] = export_precisions(
        paths.BUNDLE, paths.SHARDS, params.export, split=split, correct=exact_match, evaluation=scores
    )
    write_json(paths.REPORTS / "parity.json", report)


def benchmark(params: Params) -> None:
    """Stream files through the bundle: answers -> build/reports/streaming.json, times -> runs/latency.json.

    Times, next to torch's, differ between equal runs: neither git nor DVC holds them.
    """
    from mirasol.export.benchmark import benchmark
    from mirasol.training.weights import load_model

    model = load_model(paths.FINETUNE)
    streamed, times = benchmark(model, paths.BUNDLE, paths.DATA, params.benchmark, split=params.evaluate.split)
    write_json(paths.REPORTS / "streaming.json", streamed)
    write_json(paths.LATENCY, times)
    rounds, chunk = times["realtime_rounds"], times["chunk_ms"]
    print(
        f"[benchmark] {times['realtime']['median']:g} times real time ({rounds['low']:g} to {rounds['high']:g} over "
        f"{rounds['rounds']} rounds); a chunk takes {chunk['p50']:g} ms, 99 in 100 less than {chunk['p99']:g} ms",
        flush=True,
    )


def reports(params: Params) -> None:
    """Copy build/reports to reports/, for git, with the main figures in metrics.json, for `dvc metrics diff`.

    One stage does it for all: DVC keeps no run cache for a stage with an output that it does not cache.
    """
    from mirasol.pipeline.figures import headline

    found = {
        name: json.loads((paths.REPORTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("shards", *PHASES, "eval", "parity", "streaming")
    }
    found["metrics"] = headline(found["eval"], {phase: found[phase] for phase in PHASES})
    for name, report in found.items():
        write_json(paths.PUBLISHED / f"{name}.json", report)


STAGES: dict[str, Callable[[Params], None]] = {
    stage.__name__: stage
    for stage in (params, tokenizer, shards, pretrain, audio_pretrain, finetune, evaluate, export, benchmark, reports)
}


def made_on(params: Params, **more: Any) -> dict[str, Any]:
    """What decides the bits of a result besides code, data and parameters, with seed and threads; no time, no host."""
    import torch

    gpu = params.training.accelerator != "cpu" and torch.cuda.is_available()
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **({"gpu": torch.cuda.get_device_name()} if gpu else {}),
        "seed": params.training.seed,
        "threads": params.training.threads,
        "torch": torch.__version__,
        **more,
    }


def model_config(params: Params, phase: PhaseConfig) -> ModelConfig:
    """The sizes of the model that ``params``, the settings of ``phase`` and the trained vocabulary ask for."""
    from mirasol.tokenizer import Tokenizer

    return sized(params, phase, Tokenizer.load(paths.TOKENIZER).vocabulary)


def sized(params: Params, phase: PhaseConfig, vocabulary: int) -> ModelConfig:
    """The sizes of the model of ``phase`` with so many tokens."""
    from mirasol.model.sizes.presets import build_config

    clip = phase.view.of(params.clip)
    config = build_config(
        params.model,
        size=clip.size,
        frames_per_chunk=clip.frames_per_chunk,
        mels=clip.mels,
        audio_columns=clip.audio_columns,
        vocabulary=vocabulary,
        max_text=phase.max_text or params.tokenizer.max_text,
    )
    max_chunks = phase.max_chunks or config.max_chunks
    return dataclasses.replace(config, chunks=phase.chunks, max_chunks=max_chunks, dropout=phase.dropout)


def check_mixes(params: Params) -> None:
    """Refuse a `mix` that names no data set of the manifest, before hours of work.

    Raises:
        MirasolError: every unknown name, with its phase and the known names.
    """
    from mirasol.data.manifest import read_manifest
    from mirasol.training.config import parse_mix

    asked = {phase: parse_mix(getattr(params, phase).mix) for phase in PHASES}
    if not any(asked.values()):
        return
    known = {example.set for example in read_manifest(paths.DATA / "manifest.jsonl")} - {""}
    wrong = [f"{phase}.mix: {name}" for phase, mix in asked.items() for name in mix if name not in known]
    if wrong:
        names = ", ".join(sorted(known)) or "none, no row names its data set (`mirasol data import … --append`)"
        raise MirasolError(listing(f"mixed data sets that the manifest lacks; it has: {names}", wrong))


def check_manifest(params: Params) -> None:
    """Raise :class:`MirasolError` if the manifest lacks what the stages need, before hours of work."""
    from mirasol.data.manifest import UNLABELLED, lacking_split, needed_splits, read_manifest

    manifest = paths.DATA / "manifest.jsonl"
    examples = read_manifest(manifest)
    splits = {example.split for example in examples}
    if lack := lacking_split(needed_splits(splits, texts=any(e.answers for e in examples)), splits):
        raise MirasolError(f"{manifest}: no row in {lack}")
    learnt = {example.task for example in examples if example.split == "train"}
    for phase in PHASES:
        tasks = learnt & set(getattr(params, phase).tasks.split())
        if tasks == {UNLABELLED} and getattr(params, phase).keep == "best":
            raise MirasolError(
                f"{phase}.keep is best, but its training clips have no texts, so no answers to choose weights by: "
                f"set {phase}.keep to last"
            )


def train_phase(name: str, params: Params, init: Path | None) -> None:
    """Train phase ``name``, or resume it; write its metrics.

    It begins with the weights in ``init``; if that is ``None``, with those of `training.init` or random ones.
    """
    from mirasol.training.config import PhaseRun, RunPaths, started_processes
    from mirasol.training.strategy import is_leader
    from mirasol.training.trainer import run_phase
    from mirasol.training.transfer import receive_inputs, share_results
    from mirasol.training.weights import find_pinned

    phase: PhaseConfig = getattr(params, name)
    receive_inputs(params.training, paths.SHARDS, paths.TOKENIZER, init or params.training.init)
    init = init or find_pinned(params.training.init)
    places = RunPaths(paths.SHARDS, paths.TOKENIZER, paths.CACHE, paths.RUNS / name, paths.BUILD / name, init)
    before = [task for earlier in PHASES[: PHASES.index(name)] for task in getattr(params, earlier).tasks.split()]
    processes = started_processes()
    run = PhaseRun(name, phase, params.training, params.clip, places, tuple(dict.fromkeys(before)), processes)
    report = run_phase(run, model_config(params, phase))
    if is_leader():
        write_json(
            paths.REPORTS / f"{name}.json", report | {"made_on": made_on(params, **dataclasses.asdict(processes))}
        )
    share_results(params.training, [paths.BUILD / name, paths.REPORTS / f"{name}.json"])
