"""One stream: push chunks, ask at any time; memory does not grow with the stream."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirasol.core.errors import MirasolError
from mirasol.runtime.answer import CUT, FOREIGN, MEMORY, NO_PICTURE, NO_SOUND, Answer, Flag, Scorer
from mirasol.runtime.backends import Array
from mirasol.runtime.contract import ENCODER_COMBINER, LATENT, TEXT
from mirasol.runtime.engine import Engine
from mirasol.runtime.features import ChunkFeatures, Frames, Inputs, Samples
from mirasol.runtime.questions import LEAST

Snapshot = dict[str, Array]
MOST_CHUNKS = 1 << 40  # of a stream: thousands of years, and a float still counts its samples


class Latents(NamedTuple):
    """Features of one chunk."""

    x: NDArray[np.float32]  # [m, d], combined features (P 3.2)
    h: NDArray[np.float32]  # [m, d], latent features (P 3.3)


class Session:
    """A stream over an engine, which any number of sessions and threads may share.

    The calls of one session take turns. An answer uses the memory of the moment it began: chunks may be pushed
    meanwhile.

    Args:
        engine: a loaded engine, or the folder of a bundle.
        chunk_seconds: length of a chunk where it differs from the contract's (see ``Source.chunk_seconds``).

    Raises:
        MirasolError: ``chunk_seconds`` is not a time of at least a sample.
    """

    def __init__(self, engine: Engine | str | Path, chunk_seconds: float | None = None) -> None:
        self.engine = engine if isinstance(engine, Engine) else Engine(engine)
        self.contract = self.engine.contract
        self._features = ChunkFeatures(self.contract.clip, chunk_seconds)
        self._turn = threading.RLock()
        self._bound = {name: self.engine.bind(name) for name in (ENCODER_COMBINER, LATENT)}
        rows, model = self.contract.graphs[TEXT].input("memory").shape[1], self.contract.model
        # Rings of the last R chunks: chunk i is in row i modulo R.
        self._memory = np.zeros((rows // model.combined, model.combined, model.width), np.float32)
        self._present = np.zeros((len(self._memory), 2), np.bool_)  # video, audio
        self._chunks = 0
        self._bytes = sum(array.nbytes for array in self._arrays().values())

    def reset(self) -> None:
        """Begin a new stream."""
        with self._turn:
            self._features.reset()
            for graph, bound in self._bound.items():
                for name, first in self.engine.initial(graph).items():
                    bound.set(name, first)
            self._memory[:], self._present[:], self._chunks = 0, False, 0

    @property
    def chunks(self) -> int:
        """Chunks pushed since the beginning."""
        return self._chunks

    @property
    def seconds(self) -> float:
        """Length of the stream so far."""
        return self._chunks * self._features.chunk_seconds

    @property
    def samples(self) -> int:
        """Number of samples in the next chunk."""
        return self._features.samples

    @property
    def state_bytes(self) -> int:
        """Bytes of a snapshot, all that is kept between chunks; constant."""
        return self._bytes

    @property
    def remembers(self) -> bool:
        """Whether any chunk in memory held video or audio, so that a question makes sense."""
        return bool(self._present.any())

    @property
    def memory(self) -> tuple[Array, Array]:
        """Inputs of the text model, copied: h of the last R chunks [1, R*m, d], oldest first, and a mask [1, R*m]."""
        with self._turn:
            order = self._order(self._chunks)
            memory, valid = self._memory[order], self._present[order].any(axis=1)
        rows, combined, width = memory.shape
        return memory.reshape(1, rows * combined, width), np.repeat(valid, combined)[None]

    def _order(self, chunks: int) -> Array:
        """Rows of the rings after ``chunks`` chunks, oldest first."""
        return np.arange(chunks, chunks + len(self._memory)) % len(self._memory)

    def push(self, video: Frames | None, samples: Samples | None) -> Latents:
        """Process the next chunk; after an error the stream is unchanged.

        Args:
            video: uint8 [K, H*3/2, W], planar YUV 4:2:0; ``None`` if missing.
            samples: float32 [S], mono, S = ``self.samples``; ``None`` if missing.

        Raises:
            ValueError: another shape or type, or samples that are not finite.
            MirasolError: the model's features are not finite.
        """
        with self._turn:
            before = {name: array.copy() for name, array in self._features.snapshot().items()}
            try:
                return self._step(self._features.push(video, samples))
            except Exception:
                self._features.restore(before)
                raise

    def push_features(self, inputs: Inputs) -> Latents:
        """Like :meth:`push`, from features computed elsewhere; do not mix the two in one stream."""
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
        if not (np.isfinite(x).all() and np.isfinite(h).all()):  # in memory it would spoil all later answers
            raise MirasolError(
                f"the features of chunk {self._chunks} are not finite: give samples in [-1, 1]; if they are, take the "
                "bundle in float32"
            )
        encoder.swap()  # only now, so that a failure of either leaves both states as before
        latent.swap()
        # An empty chunk keeps its place in time, masked out.
        place = self._chunks % len(self._memory)
        self._memory[place], self._present[place] = h[0], (inputs.video_present, inputs.audio_present)
        self._chunks += 1
        return Latents(x[0], h[0])

    def ask(self, question: str, max_tokens: int | None = None) -> Answer:
        """Answer ``question`` about the stream so far, with a score and remarks.

        Raises MirasolError if the memory holds no video or audio, the question is empty or too long for the text
        cache, or ``max_tokens`` is below 1.
        """
        pieces = self.ask_stream(question, max_tokens)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

    def ask_stream(self, question: str, max_tokens: int | None = None) -> Generator[str, None, Answer]:
        """Yield the text of :meth:`ask` piece by piece and return its answer."""
        with self._turn:
            tokens = self._tokens(question, max_tokens)
            seconds, used = self.seconds, int(self._present.any(axis=1).sum()) * self._features.chunk_seconds
            similarity, nearest = self.engine.nearest_prompt(question)
            flags = list(self._flags(similarity, nearest))
        scorer, said, eos = Scorer(), "", self.contract.tokenizer.eos
        for token, logits in tokens:
            scorer.add(token, logits)
            text = said if token == eos else self.engine.tokenizer.decode(scorer.ids)
            if len(text) > len(said):
                yield text[len(said) :]
                said = text
        complete = scorer.ids[-1:] == [eos]
        said = self.engine.tokenizer.decode(scorer.ids[:-1] if complete else scorer.ids)
        known = None if similarity is None else similarity >= LEAST
        if not complete:
            flags.append(Flag(CUT, f"the answer is cut at {len(scorer.ids)} tokens, the longest that is allowed"))
        return Answer(said, seconds, complete, scorer.score, scorer.margin, used, known, tuple(flags))

    def flags(self, question: str) -> list[Flag]:
        """Remarks about the stream so far, and about ``question`` if it is unlike those of training."""
        with self._turn:
            return list(self._flags(*self.engine.nearest_prompt(question)))

    def _flags(self, similarity: float | None, nearest: str) -> Iterator[Flag]:
        """The remarks, with the similarity of the question to the ``nearest`` of training."""
        if similarity is not None and similarity < LEAST:
            like = f" (nearest: {nearest!r})" if nearest else ""
            yield Flag(FOREIGN, f"the question is unlike any that was learnt{like}")
        video, audio = bool(self._present[:, 0].any()), bool(self._present[:, 1].any())
        if not audio:
            yield Flag(NO_SOUND, "no sound: the answer rests on the picture alone")
        if not video:
            yield Flag(NO_PICTURE, "no picture: the answer rests on the sound alone")
        if self._chunks > len(self._memory):
            kept = len(self._memory) * self._features.chunk_seconds
            yield Flag(MEMORY, f"only the last {kept:.3g} s of {self.seconds:.4g} s are remembered")

    def answer_ids(self, question: str, max_tokens: int | None = None) -> Iterator[int]:
        """Greedy tokens of the answer, without the end mark; raises like :meth:`ask`."""
        tokens = self._tokens(question, max_tokens)
        return (token for token, _ in tokens if token != self.contract.tokenizer.eos)

    def _tokens(self, question: str, max_tokens: int | None) -> Iterator[tuple[int, Array]]:
        self.engine.check_question(question)
        if max_tokens is not None and not max_tokens >= 1:
            raise MirasolError(f"max_tokens is {max_tokens}: expected 1 or more, or None for the model's own limit")
        memory, valid = self.memory
        if not valid.any():
            raise MirasolError("nothing to ask about: no chunk in memory holds video or audio")
        return greedy(self.engine, question, memory, valid, max_tokens)

    def snapshot(self) -> Snapshot:
        """The whole state as named arrays, copied, ready for ``numpy.savez``."""
        with self._turn:
            return self._arrays()

    def _arrays(self) -> Snapshot:
        arrays = {f"features/{name}": array.copy() for name, array in self._features.snapshot().items()}
        for graph, bound in self._bound.items():
            arrays |= {f"{graph}/{s.input}": bound.get(s.input) for s in self.contract.graphs[graph].states}
        arrays["memory"], arrays["memory_valid"] = self.memory
        arrays["present"] = self._present[self._order(self._chunks)]
        arrays["chunks"] = np.array(self._chunks)
        arrays["bundle"] = np.frombuffer(bytes.fromhex(self.contract.sha256), np.uint8)
        return arrays

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a :meth:`snapshot` of any session over the same bundle; after an error the stream is unchanged.

        Raises MirasolError if it is no snapshot or of another bundle, is incomplete or not finite.
        """
        if not isinstance(snapshot, Mapping):
            raise MirasolError(f"a snapshot is a mapping of names to arrays, got {type(snapshot).__name__}")
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
            chunks, present = int(snapshot["chunks"]), snapshot["present"]
            if not np.array_equal(
                np.repeat(present.any(axis=1), self.contract.model.combined), snapshot["memory_valid"][0]
            ):
                raise MirasolError("the snapshot's memory_valid is damaged: it differs from its present")
            self._features.restore({name: snapshot[f"features/{name}"] for name in self._features.snapshot()})
            for graph, bound in self._bound.items():
                for state in self.contract.graphs[graph].states:
                    bound.set(state.input, snapshot[f"{graph}/{state.input}"])
            self._chunks = chunks
            order = self._order(chunks)
            self._memory[order], self._present[order] = snapshot["memory"].reshape(self._memory.shape), present


def greedy(
    engine: Engine, question: str, memory: Array, valid: Array, max_tokens: int | None = None
) -> Iterator[tuple[int, Array]]:
    """Greedy decoding: tokens with their logits [V]; the last token may be the end mark.

    Args:
        memory: h of the remembered chunks [1, R*m, d].
        valid: mask [1, R*m], True for at least one row.
        max_tokens: of the answer, end mark included; the contract's ``max_answer`` by default.

    Raises:
        MirasolError: the question is too long for the text cache.
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
