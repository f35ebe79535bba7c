"""A bundle, checked and loaded, for many sessions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mirasol.core.errors import MirasolError
from mirasol.runtime.backends import Array, Bound, Step
from mirasol.runtime.backends import onnxruntime as ort
from mirasol.runtime.backends import tensorrt as trt
from mirasol.runtime.contract import CONTRACT_FILE, ENCODER_COMBINER, LATENT, TEXT, Contract, read_contract
from mirasol.runtime.features import ChunkFeatures
from mirasol.runtime.questions import LearntPrompts
from mirasol.runtime.releases import resolve
from mirasol.tokenizer import Tokenizer

States = dict[str, Array]
CHOICES = ("auto", *ort.PROVIDERS, "tensorrt-native")


class Engine:
    """The graphs, contract and tokenizer of a bundle; it holds no state of any stream.

    Args:
        bundle: the folder that `mirasol stage export` wrote, or `release:current` (:mod:`mirasol.runtime.releases`).
        threads: CPU threads of one call, at most 256 or four for each core; 0 leaves the choice to the backend.
        provider: "cpu", "cuda" or "tensorrt" of onnxruntime, "tensorrt-native" without it, or "auto": CUDA if
            onnxruntime has it and finds a GPU, else the CPU.

    Raises:
        MirasolError: the bundle is missing, damaged, of another version, or does not fit its contract; the
            provider does not exist, is not installed, or finds no GPU; ``threads`` is not in its range.
    """

    def __init__(self, bundle: str | Path, *, threads: int = 0, provider: str = "auto") -> None:
        if provider not in CHOICES:
            raise MirasolError(f"the provider {provider!r} does not exist: one of {', '.join(CHOICES)}")
        most = max(256, 4 * (os.cpu_count() or 1))
        if not isinstance(threads, int) or not 0 <= threads <= most:
            raise MirasolError(
                f"threads is {threads!r}: expected a whole number from 0 to {most}; 0: the engine decides"
            )
        self.bundle = resolve(bundle)
        self.contract = read_contract(self.bundle)
        self.tokenizer = Tokenizer.load(self.bundle / self.contract.tokenizer.file)
        prompts = self.contract.prompts
        self._learnt = None if prompts is None else LearntPrompts(prompts)
        self._idle: dict[str, list[Bound]] = {name: [] for name in self.contract.graphs}  # see lent
        self.provider, self._steps = self._load(provider, threads)  # the provider in use, never "auto"
        _check_sizes(self.contract, self.bundle)

    def _load(self, provider: str, threads: int) -> tuple[str, dict[str, Step]]:
        if provider == "auto":
            if "cuda" in ort.available():
                with contextlib.suppress(MirasolError):
                    return self._load("cuda", threads)
            provider = "cpu"  # raises its own error
        files = {name: (self.bundle / graph.file, graph) for name, graph in self.contract.graphs.items()}
        if provider == "tensorrt-native":
            hashes = self.contract.files
            return provider, {name: trt.load(file, graph, hashes[file.name]) for name, (file, graph) in files.items()}
        return provider, {name: ort.load(file, graph, threads, provider) for name, (file, graph) in files.items()}

    def step(self, graph: str) -> Step:
        """A graph: a call takes all inputs by name and returns all outputs by name."""
        return self._steps[graph]

    def bind(self, graph: str) -> Bound:
        """A graph with its own buffers in the initial state, for one stream or one answer."""
        return self._steps[graph].bind()

    @contextlib.contextmanager
    def lent(self, graph: str) -> Iterator[Bound]:
        """Like :meth:`bind`, for a short time: the buffers are reused afterwards."""
        try:
            bound = self._idle[graph].pop()
        except IndexError:
            bound = self.bind(graph)
        else:
            for name, value in self.initial(graph).items():
                bound.set(name, value)
        try:
            yield bound
        finally:
            self._idle[graph].append(bound)

    def initial(self, graph: str) -> States:
        """Initial states of ``graph``."""
        spec = self.contract.graphs[graph]
        tensors = {state: spec.input(state.input) for state in spec.states}
        return {t.name: np.full(t.shape, state.initial, t.dtype) for state, t in tensors.items()}

    def encoder_combiner(
        self, video: Array, audio: Array, video_present: bool, audio_present: bool, states: States
    ) -> tuple[Array, States]:
        """Combined features x [1, m, d] of one chunk: video [1, K, H*3/2, W] uint8, audio [1, A, M]."""
        presence = {"video_present": np.array([video_present]), "audio_present": np.array([audio_present])}
        return self._run(ENCODER_COMBINER, {"video": video, "audio": audio, **presence}, states, "x")

    def latent(self, x: Array, states: States) -> tuple[Array, States]:
        """Latent features h [1, m, d] of a chunk."""
        return self._run(LATENT, {"x": x}, states, "h")

    def text(self, token: int, memory: Array, memory_valid: Array, states: States) -> tuple[Array, States]:
        """Logits [1, V] of the token after ``token``; memory [1, R*m, d], memory_valid [1, R*m]."""
        inputs = {"token": np.array([token], np.int64), "memory": memory, "memory_valid": memory_valid}
        return self._run(TEXT, inputs, states, "logits")

    def check_question(self, question: str) -> None:
        """Raise MirasolError for a question that is empty or too long, before any chunk is decoded for it."""
        if not isinstance(question, str):
            raise MirasolError(f"the question is {question!r}: expected a text")
        if not question.strip():
            raise MirasolError("the question is empty: ask, for example, 'Classify the video audio clip.'")
        self.prompt(question)

    def nearest_prompt(self, question: str) -> tuple[float | None, str]:
        """Similarity in [0, 1] of ``question`` to the nearest prompt of training, and that prompt.

        ``None`` and "" if the bundle does not list its prompts. See :class:`~mirasol.runtime.questions.LearntPrompts`.
        """
        return (None, "") if self._learnt is None else self._learnt.nearest(question)

    def prompt(self, question: str) -> list[int]:
        """Tokens of ``question``; raises MirasolError if they leave no space for an answer in the text cache."""
        ids = self.tokenizer.text_ids(question, None)
        if len(ids) >= self.contract.model.max_text:
            raise MirasolError(
                f"the question has {len(ids)} tokens, but the text cache holds {self.contract.model.max_text} with the "
                "answer: ask a shorter question, or train and export with a larger finetune.max_text, "
                "or tokenizer.max_text where that is 0"
            )
        return ids

    def _run(self, graph: str, inputs: States, states: States, output: str) -> tuple[Array, States]:
        outputs = self._steps[graph]({**inputs, **states})
        pairs = self.contract.graphs[graph].states
        return outputs[output], {state.input: outputs[state.output] for state in pairs}

    def check_golden(self) -> float:
        """Replay the golden inputs and return the largest relative difference to torch's outputs.

        Raises MirasolError if it exceeds the contract's tolerance.
        """
        spec = self.contract.golden
        with np.load(self.bundle / spec.file, allow_pickle=False) as archive:
            golden = {name: archive[name] for name in archive.files}
        features = ChunkFeatures(self.contract.clip)
        at, worst = 0, 0.0
        states, latent_states = self.initial(ENCODER_COMBINER), self.initial(LATENT)
        for t in range(spec.chunks):
            samples = golden["samples"][at : at + features.samples]
            at += len(samples)
            worst = max(worst, relative(features.push(None, samples).audio[0], golden["audio"][t]))
            flags = bool(golden["video_present"][t]), bool(golden["audio_present"][t])
            x, states = self.encoder_combiner(golden["video"][t : t + 1], golden["audio"][t : t + 1], *flags, states)
            h, latent_states = self.latent(x, latent_states)
            worst = max(worst, relative(x[0], golden["x"][t]), relative(h[0], golden["h"][t]))
        states = self.initial(TEXT)
        for i in range(spec.tokens):
            logits, states = self.text(int(golden["token"][i]), golden["memory"], golden["memory_valid"], states)
            worst = max(worst, relative(logits[0], golden["logits"][i]))
        if not worst <= spec.tolerance:
            raise MirasolError(
                f"{self.bundle}: the golden outputs differ by {worst:.1e} relative, the contract allows "
                f"{spec.tolerance:.1e}: this backend does not compute the exported graphs"
            )
        return worst


def relative(found: Array, expected: Array) -> float:
    """Largest difference over the largest expected magnitude; infinite if either is not finite."""
    difference = np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max()
    scale = np.abs(np.asarray(expected, np.float64)).max()
    ratio = difference / max(float(scale), 1e-30)
    return float(ratio) if np.isfinite(ratio) else float("inf")


def _check_sizes(contract: Contract, bundle: Path) -> None:
    """Refuse a contract with graphs that do not fit the sizes of its clip and model."""
    clip, model = contract.clip, contract.model
    rows = model.max_chunks * model.combined
    for graph, name, expected in (
        (ENCODER_COMBINER, "video", (1, clip.frames_per_chunk, clip.size * 3 // 2, clip.size)),
        (ENCODER_COMBINER, "audio", (1, clip.audio_columns, clip.mels)),
        (LATENT, "x", (1, model.combined)),
        (TEXT, "memory", (1, rows, model.width)),
        (TEXT, "memory_valid", (1, rows)),
    ):
        found = next((t.shape for t in contract.graphs[graph].inputs if t.name == name), ())
        if found[: len(expected)] != expected:
            raise MirasolError(
                f"{bundle / CONTRACT_FILE}: {graph}: {name} has shape {found}, but the contract's clip and model "
                f"make it begin with {expected}. Export the bundle again"
            )
