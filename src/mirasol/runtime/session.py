"""One stream: push chunks, ask at any time. Memory is bounded whatever the length of the stream."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.runtime.backends import Array
from mirasol.runtime.contract import ENCODER_COMBINER, LATENT, TEXT
from mirasol.runtime.engine import Engine
from mirasol.runtime.features import ChunkFeatures, Frames, Inputs, Samples

Snapshot = dict[str, Array]
MOST_CHUNKS = 1 << 40  # of a stream: thousands of years, and a float still counts its samples


class Latents(NamedTuple):
    """What a chunk became."""

    x: NDArray[np.float32]  # [m, d], combined features (P 3.2)
    h: NDArray[np.float32]  # [m, d], latent features (P 3.3)


class Session:
    """A stream over an engine; several sessions may share one engine, each in a thread of its own or not.

    A session's own calls take turns, from whatever thread they come. An answer keeps the memory as it was when
    it began: chunks may be pushed while it is being said.

    Args:
        engine: a loaded engine, or the folder of a bundle.
        chunk_seconds: length of a chunk, where it is another than the contract's (see ``Source.chunk_seconds``).
    """

    def __init__(self, engine: Engine | str | Path, chunk_seconds: float | None = None) -> None:
        self.engine = engine if isinstance(engine, Engine) else Engine(engine)
        self.contract = self.engine.contract
        self._features = ChunkFeatures(self.contract.clip, chunk_seconds)
        self._turn = threading.RLock()
        self._bound = {name: self.engine.bind(name) for name in (ENCODER_COMBINER, LATENT)}
        rows, model = self.contract.graphs[TEXT].input("memory").shape[1], self.contract.model
        # Rings of the last R chunks: chunk i stands in row i modulo R.
        self._memory = np.zeros((rows // model.combined, model.combined, model.width), np.float32)
        self._valid = np.zeros(len(self._memory), np.bool_)
        self._chunks = 0
        self._bytes = sum(array.nbytes for array in self._arrays().values())

    def reset(self) -> None:
        """Forget everything: the next chunk is the first of a new stream."""
        with self._turn:
            self._features.reset()
            for graph, bound in self._bound.items():
                for name, first in self.engine.initial(graph).items():
                    bound.set(name, first)
            self._memory[:], self._valid[:], self._chunks = 0, False, 0

    @property
    def chunks(self) -> int:
        """Chunks pushed since the beginning."""
        return self._chunks

    @property
    def samples(self) -> int:
        """How many samples the next chunk takes."""
        return self._features.samples

    @property
    def state_bytes(self) -> int:
        """Bytes that this stream keeps between chunks, those of a snapshot. It never grows."""
        return self._bytes

    @property
    def remembers(self) -> bool:
        """Whether there is anything to ask about: a chunk in memory that held video or audio."""
        return bool(self._valid.any())

    @property
    def memory(self) -> tuple[Array, Array]:
        """What the text model looks at: h of the last R chunks [1, R*m, d], and which of it is there [1, R*m].

        Oldest first; copies.
        """
        with self._turn:
            order = np.arange(self._chunks, self._chunks + len(self._memory)) % len(self._memory)
            memory, valid = self._memory[order], self._valid[order]
        rows, combined, width = memory.shape
        return memory.reshape(1, rows * combined, width), np.repeat(valid, combined)[None]

    def push(self, video: Frames | None, samples: Samples | None) -> Latents:
        """Take in the next chunk; ``None`` stands for a modality that is not there.

        Args:
            video: uint8 [K, H*3/2, W], planar YUV 4:2:0.
            samples: float32 [S], mono, as many as ``self.samples`` says.

        Raises:
            ValueError: another shape or type, or samples that are not finite; the stream is as before.
            MirasolError: what the model makes of it is not finite; the stream is as before.
        """
        with self._turn:
            before = {name: array.copy() for name, array in self._features.snapshot().items()}
            try:
                return self._step(self._features.push(video, samples))
            except Exception:
                self._features.restore(before)
                raise

    def push_features(self, inputs: Inputs) -> Latents:
        """The same from features that were made elsewhere; in one stream, use this or :meth:`push`.

        Raises:
            ValueError: another shape or type, or audio that is not finite; the stream is as before.
            MirasolError: as :meth:`push`.
        """
        for name, array in (("video", inputs.video), ("audio", inputs.audio)):
            spec = self.contract.graphs[ENCODER_COMBINER].input(name)
            if array.shape != spec.shape or array.dtype != spec.dtype:
                raise ValueError(f"{name}: expected {spec.dtype} {spec.shape}, got {array.dtype} {array.shape}")
        if not np.isfinite(inputs.audio).all():
            raise ValueError("audio: some features are not finite")
        with self._turn:
            return self._step(inputs)

    def _step(self, inputs: Inputs) -> Latents:
        encoder, latent = self._bound[ENCODER_COMBINER], self._bound[LATENT]
        encoder.set("video", inputs.video)
        encoder.set("audio", inputs.audio)
        encoder.set("video_present", np.array([inputs.video_present]))
        encoder.set("audio_present", np.array([inputs.audio_present]))
        encoder.run()
        x = encoder.get("x")
        latent.set("x", x)
        latent.run()
        h = latent.get("h")
        if not (np.isfinite(x).all() and np.isfinite(h).all()):  # remembered, it would spoil all that follows
            raise MirasolError(
                f"the features of chunk {self._chunks} are not finite: give samples in [-1, 1]; if they are, take the "
                "bundle in float32"
            )
        encoder.swap()  # only now: had one of the two failed, both would be as before
        latent.swap()
        # A chunk that held nothing keeps its place in time, and is not looked at.
        place = self._chunks % len(self._memory)
        self._memory[place], self._valid[place] = h[0], inputs.video_present or inputs.audio_present
        self._chunks += 1
        return Latents(x[0], h[0])

    def ask(self, question: str, max_tokens: int | None = None) -> str:
        """The answer to ``question`` about what the stream has shown so far."""
        return self.engine.tokenizer.decode(self.answer_ids(question, max_tokens))

    def ask_stream(self, question: str, max_tokens: int | None = None) -> Generator[str, None, bool]:
        """The answer piece by piece, each as soon as it is known; joined they are :meth:`ask`'s.

        The generator returns whether the model has ended its answer; else it was cut at ``max_tokens``.
        """
        ids: list[int] = []
        said = ""
        for token, _ in self._tokens(question, max_tokens):
            if token == self.contract.tokenizer.eos:
                return True
            ids.append(token)
            text = self.engine.tokenizer.decode(ids)
            if len(text) > len(said):
                yield text[len(said) :]
                said = text
        return False

    def answer_ids(self, question: str, max_tokens: int | None = None) -> Iterator[int]:
        """Greedy tokens of the answer, without the end mark.

        Raises:
            MirasolError: the stream has shown nothing yet, or the question leaves no room in the text cache.
        """
        tokens = self._tokens(question, max_tokens)
        return (token for token, _ in tokens if token != self.contract.tokenizer.eos)

    def _tokens(self, question: str, max_tokens: int | None) -> Iterator[tuple[int, Array]]:
        memory, valid = self.memory
        if not valid.any():
            raise MirasolError("there is nothing to ask about: no chunk that is remembered held video or audio")
        return greedy(self.engine, question, memory, valid, max_tokens)

    def snapshot(self) -> Snapshot:
        """Everything this stream remembers as named arrays, copied: fit for ``numpy.savez``."""
        with self._turn:
            return self._arrays()

    def _arrays(self) -> Snapshot:
        arrays = {f"features/{name}": array.copy() for name, array in self._features.snapshot().items()}
        for graph, bound in self._bound.items():
            arrays |= {f"{graph}/{s.input}": bound.get(s.input) for s in self.contract.graphs[graph].states}
        arrays["memory"], arrays["memory_valid"] = self.memory
        arrays["chunks"] = np.array(self._chunks)
        arrays["bundle"] = np.frombuffer(bytes.fromhex(self.contract.sha256), np.uint8)
        return arrays

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a :meth:`snapshot` of this or another session over the same bundle.

        Raises:
            MirasolError: the snapshot belongs to another bundle, is incomplete, or holds what is not finite; the
                stream is as before.
        """
        with self._turn:
            own = self._arrays()
            if not np.array_equal(snapshot.get("bundle", np.zeros(0)), own["bundle"]):
                raise MirasolError(f"the snapshot was not taken over the bundle {self.engine.bundle}")
            for name, array in own.items():
                other = snapshot.get(name)
                if other is None or (other.shape, other.dtype) != (array.shape, array.dtype):
                    raise MirasolError(f"the snapshot's {name} is missing or has another shape than {array.shape}")
                if not np.isfinite(other).all():
                    raise MirasolError(f"the snapshot's {name} is damaged: it is not finite")
            for name in ("chunks", "features/index"):
                if not 0 <= int(snapshot[name]) < MOST_CHUNKS:
                    raise MirasolError(f"the snapshot's {name} is damaged: it counts {int(snapshot[name])} chunks")
            chunks = int(snapshot["chunks"])
            self._features.restore({name: snapshot[f"features/{name}"] for name in self._features.snapshot()})
            for graph, bound in self._bound.items():
                for state in self.contract.graphs[graph].states:
                    bound.set(state.input, snapshot[f"{graph}/{state.input}"])
            self._chunks = chunks
            order = np.arange(chunks, chunks + len(self._memory)) % len(self._memory)
            self._memory[order] = snapshot["memory"].reshape(self._memory.shape)
            self._valid[order] = snapshot["memory_valid"].reshape(len(self._memory), -1)[:, 0]


def greedy(
    engine: Engine, question: str, memory: Array, valid: Array, max_tokens: int | None = None
) -> Iterator[tuple[int, Array]]:
    """The greedy answer's tokens, each with the logits [V] that it is the largest of; the last may be the end mark.

    Args:
        memory: h of the remembered chunks [1, R*m, d].
        valid: which of it is there [1, R*m], at least one.
        max_tokens: of the answer, its end mark included; the contract's ``max_answer`` by default.

    Raises:
        MirasolError: the question leaves no room in the text cache.
    """
    prompt, model = engine.prompt(question), engine.contract.model
    limit = min(model.max_text - len(prompt), model.max_answer if max_tokens is None else max_tokens)
    return _greedy(engine, prompt, memory, valid, limit)


def _greedy(engine: Engine, prompt: list[int], memory: Array, valid: Array, limit: int) -> Iterator[tuple[int, Array]]:
    with engine.lent(TEXT) as text:
        text.set("memory", memory)
        text.set("memory_valid", valid)

        def feed(token: int) -> None:
            text.set("token", np.array([token], np.int64))
            text.run()
            text.swap()

        for token in prompt[:-1]:
            feed(token)
        token = prompt[-1]
        for _ in range(limit):
            feed(token)
            logits = text.get("logits")[0]
            token = int(logits.argmax())
            yield token, logits
            if token == engine.contract.tokenizer.eos:
                return
