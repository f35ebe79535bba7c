"""Export a trained model to a bundle: graphs, contract, tokenizer, golden tensors, card and licence, or nothing."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from ruamel.yaml import YAML

import mirasol
from mirasol.core import code
from mirasol.core.errors import MirasolError
from mirasol.core.files import disk_error, sha256_file
from mirasol.core.progress import Progress
from mirasol.export.config import ExportSpec
from mirasol.export.io_spec import StepGraph, audio_graph, step_graphs
from mirasol.export.model_card import model_card
from mirasol.export.onnx import ATTENTION_OPSET, Weights, write_onnx
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import chunk_edge, clip_audio
from mirasol.model.mirasol import Mirasol
from mirasol.runtime.contract import (
    AUDIO,
    CONTRACT_FILE,
    CONTRACT_VERSION,
    AudioFormat,
    Contract,
    GoldenSpec,
    ModelFacts,
    Provenance,
    TokenizerFacts,
    VideoFormat,
)
from mirasol.runtime.engine import Engine, relative
from mirasol.tokenizer import ANSWER, BOS, Tokenizer

TOKENIZER_FILE = "tokenizer.json"
GOLDEN_FILE = "golden.npz"
CARD_FILE = "README.md"
LICENCE_FILE = "LICENSE"
NO_LICENCE = """The project that this bundle was exported from states no licence: it has no file LICENSE.
The weights carry what the licences of the data they were trained on ask for.
"""
GOLDEN_CHUNKS, GOLDEN_TOKENS, GOLDEN_SEED = 6, 8, 20231109
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "av")


@dataclass(frozen=True)
class TrainedModel:
    """A model and the settings of its training that a bundle records."""

    model: Mirasol  # on the CPU, in float32; the export puts it into eval mode
    clip: ClipSpec
    tokenizer: Path  # `tokenizer.json`
    max_answer: int  # tokens of an answer, unless a caller of the runtime asks for another number
    prompts: tuple[str, ...] | None = None  # of training, the most frequent first (:mod:`mirasol.export.prompts`)


def export_bundle(
    trained: TrainedModel,
    out: str | Path,
    spec: ExportSpec,
    *,
    project: str | Path = ".",
    evaluation: str | Path | None = None,
) -> Contract:
    """Write a bundle to the folder ``out`` and replace an earlier one.

    The new folder is renamed only after it was loaded and its golden outputs were compared with torch's.

    Args:
        trained: the model to export.
        out: the folder of the bundle.
        spec: opset and tolerance.
        project: the folder with `params.yaml`, `data.dvc` and the git repository, for the provenance.
        evaluation: `reports/eval.json` for the model card; may be missing.

    Raises:
        MirasolError: the model cannot stream, the tokenizer does not fit it, the exported graphs differ from torch, or
            the folder cannot be written.
    """
    model, out = trained.model, Path(out)
    model.eval()
    steps = step_graphs(model)
    graphs = [audio_graph(trained.clip), *steps]
    vocabulary = Tokenizer.load(trained.tokenizer).vocabulary
    if vocabulary != model.config.vocabulary:
        raise MirasolError(
            f"{trained.tokenizer} has {vocabulary} pieces, the model was trained with {model.config.vocabulary}: "
            "train it again"
        )
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        opsets = (spec.opset, ATTENTION_OPSET)
        with Progress("export", len(graphs) * len(opsets), "graphs") as progress:
            for graph in graphs:
                weights = Weights(temporary / f"{graph.spec.file}.data")
                for opset in opsets:
                    write_onnx(graph, opset, temporary / _file(graph, opset, spec), weights)
                    progress.advance()
        shutil.copyfile(trained.tokenizer, temporary / TOKENIZER_FILE)
        licence = Path(project) / LICENCE_FILE
        text = licence.read_text(encoding="utf-8") if licence.is_file() else NO_LICENCE
        (temporary / LICENCE_FILE).write_text(text, encoding="utf-8")
        np.savez(temporary / GOLDEN_FILE, allow_pickle=False, **golden(steps, trained.clip))
        contract = _contract(trained, graphs, spec, Path(project))
        (temporary / CARD_FILE).write_text(model_card(contract, read_scores(evaluation)), encoding="utf-8")
        contract.files.update({file.name: sha256_file(file) for file in sorted(temporary.iterdir())})
        _verify(temporary, contract)
        temporary.chmod(0o755)
        replace_folder(temporary, out)
        temporary = None
    except OSError as error:
        raise disk_error(error, out) or error from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return contract


@torch.no_grad()
def golden(graphs: list[StepGraph], clip: ClipSpec) -> dict[str, NDArray[np.generic]]:
    """Inputs from a fixed seed, and torch's outputs along one stream.

    Chunks: both modalities, sound missing, video missing, neither, both. The inputs are random numbers, since a bundle
    may be shared where its data may not.

    Returns:
        samples [S] of all C chunks, video [C, K, H*3/2, W], audio [C, A, M], video_present [C],
        audio_present [C], x and h [C, m, d]; token [L'], memory [1, R*m, d], memory_valid [1, R*m],
        logits [L', V].
    """
    aligned, latent, text = graphs
    random = np.random.default_rng(GOLDEN_SEED)
    shapes = {tensor.name: tensor.shape[1:] for graph in graphs for tensor in graph.spec.inputs}
    video = random.integers(16, 236, (GOLDEN_CHUNKS, *shapes["video"]), dtype=np.uint8)
    seconds = clip.chunk_seconds
    samples = random.normal(0, 0.1, chunk_edge(GOLDEN_CHUNKS, seconds, clip.sample_rate)).astype(np.float32)
    audio = clip_audio(samples, clip, seconds, GOLDEN_CHUNKS)
    video_present = np.array([True, True, False, False, True, True])
    audio_present = np.array([True, False, True, False, True, True])
    xs, hs = [], []
    state, latent_state = tuple(aligned.state.values()), tuple(latent.state.values())
    for t in range(GOLDEN_CHUNKS):
        chunk = (torch.from_numpy(a[t : t + 1]) for a in (video, audio, video_present, audio_present))
        x, *state = aligned.module(*chunk, *state)
        h, *latent_state = latent.module(x, *latent_state)
        xs.append(x.numpy())
        hs.append(h.numpy())
    memory = np.zeros((1, *shapes["memory"]), np.float32)
    valid = np.zeros((1, *shapes["memory_valid"]), np.bool_)
    for h, present in zip(hs, video_present | audio_present, strict=True):  # newest last
        memory = np.concatenate([memory[:, h.shape[1] :], h], axis=1)
        valid = np.concatenate([valid[:, h.shape[1] :], np.full(h.shape[:2], present)], axis=1)
    vocabulary = text.spec.outputs[0].shape[1]
    tokens = np.array([BOS, *random.integers(0, vocabulary, GOLDEN_TOKENS - 2), ANSWER], np.int64)
    logits = []
    state = tuple(text.state.values())
    for i in range(GOLDEN_TOKENS):
        step = (torch.from_numpy(tokens[i : i + 1]), torch.from_numpy(memory), torch.from_numpy(valid))
        output, *state = text.module(*step, *state)
        logits.append(output.numpy())
    return {
        "samples": samples,
        "video": video,
        "audio": audio,
        "video_present": video_present,
        "audio_present": audio_present,
        "x": np.concatenate(xs),
        "h": np.concatenate(hs),
        "token": tokens,
        "memory": memory,
        "memory_valid": valid,
        "logits": np.concatenate(logits),
    }


def _file(graph: StepGraph, opset: int, spec: ExportSpec) -> str:
    return graph.spec.file if opset == spec.opset else graph.spec.file.replace(".onnx", f".opset{opset}.onnx")


def _verify(folder: Path, contract: Contract) -> None:
    """Replay the golden inputs through the graphs of every opset; the contract written last stays."""
    for opset in sorted(contract.opsets, key=lambda opset: int(opset) == contract.opset):
        files = contract.opsets[opset]
        graphs = {name: replace(graph, file=files[name]) for name, graph in contract.graphs.items()}
        text = replace(contract, opset=int(opset), graphs=graphs).to_json()
        (folder / CONTRACT_FILE).write_text(text, encoding="utf-8")
        engine = Engine(folder, threads=1)
        engine.check_golden()
        check_audio(engine)


def check_audio(engine: Engine) -> float:
    """Replay the golden sound through `audio_step`; returns the largest relative difference to the runtime's features.

    Raises MirasolError if it exceeds the contract's tolerance.
    """
    contract = engine.contract
    with np.load(engine.bundle / contract.golden.file, allow_pickle=False) as archive:
        samples, expected = archive["samples"], archive["audio"]
    seconds, rate = contract.clip.chunk_seconds, contract.clip.sample_rate
    edges = [chunk_edge(t, seconds, rate) for t in range(contract.golden.chunks + 1)]
    shape = contract.graphs[AUDIO].input("samples").shape
    step, state, worst = engine.step(AUDIO), engine.initial(AUDIO), 0.0
    for (low, high), audio in zip(itertools.pairwise(edges), expected, strict=True):
        chunk = np.zeros(shape, np.float32)
        chunk[0, : high - low] = samples[low:high]
        outputs = step({"samples": chunk, "count": np.array([high - low]), **state})
        state = {pair.input: outputs[pair.output] for pair in contract.graphs[AUDIO].states}
        worst = max(worst, relative(outputs["audio"][0], audio))
    if not worst <= contract.golden.tolerance:
        raise MirasolError(
            f"{engine.bundle}: {AUDIO} differs from the features by {worst:.1e} relative, the contract allows "
            f"{contract.golden.tolerance:.1e}"
        )
    return worst


def _contract(trained: TrainedModel, graphs: list[StepGraph], spec: ExportSpec, project: Path) -> Contract:
    c = trained.model.config
    return Contract(
        version=CONTRACT_VERSION,
        clip=trained.clip,
        video=VideoFormat(),
        audio=AudioFormat(),
        model=ModelFacts(
            combiner=c.combiner,
            latent=c.latent,
            width=c.latent_sizes.width,
            combined=c.num_queries,
            max_chunks=c.max_chunks,
            vocabulary=c.vocabulary,
            max_text=c.max_text,
            max_answer=trained.max_answer,
            parameters=sum(p.numel() for p in trained.model.parameters()),
            precision="float32",
        ),
        tokenizer=TokenizerFacts(TOKENIZER_FILE),
        opset=spec.opset,
        graphs={graph.name: graph.spec for graph in graphs},
        opsets={
            str(opset): {graph.name: _file(graph, opset, spec) for graph in graphs}
            for opset in (spec.opset, ATTENTION_OPSET)
        },
        golden=GoldenSpec(GOLDEN_FILE, GOLDEN_CHUNKS, GOLDEN_TOKENS, spec.tolerance),
        provenance=provenance(project),
        tools={"mirasol": mirasol.__version__} | {name: importlib.metadata.version(name) for name in TOOLS},
        licence=LICENCE_FILE,
        files={},
        prompts=trained.prompts,
    )


def provenance(project: Path) -> Provenance:
    """Data and params of ``project``, and the last commit that changed them or deciding code; ``None`` if missing.

    A commit that records results alone is not that one: equal inputs give equal bundles before and after it.
    """
    params, data = project / "params.yaml", project / "data.dvc"
    outs = YAML(typ="safe").load(data).get("outs", [{}]) if data.is_file() else [{}]
    paths = [params.name, data.name, *(f"src/mirasol/{entry}" for entry in code.ENTRIES)]
    commit = _git(project, "log", "-1", "--format=%H", "--", *paths) or None
    changed = _git(project, "status", "--porcelain", "--", *paths) if commit else None
    return Provenance(
        commit=commit,
        changed=bool(changed),
        data=outs[0].get("md5"),
        params=sha256_file(params) if params.is_file() else None,
    )


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or no repository: allowed
    return done.stdout.strip()


def read_scores(evaluation: str | Path | None) -> dict[str, object]:
    """The scores in `reports/eval.json` for the card; empty if it is missing."""
    if evaluation is None or not Path(evaluation).is_file():
        return {}
    return dict(json.loads(Path(evaluation).read_text(encoding="utf-8")))


def replace_folder(new: Path, out: Path) -> None:
    """Move ``new`` to ``out``; an earlier folder is first moved aside, then removed."""
    if not out.exists():
        new.replace(out)
        return
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    out.replace(aside / out.name)
    new.replace(out)
    shutil.rmtree(aside, ignore_errors=True)
