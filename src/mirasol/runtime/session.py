"""One stream: push chunks, ask at any time. Memory is bounded whatever the length of the stream."""

from __future__ import annotations

from collections.abc import Iterator
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


class Latents(NamedTuple):
    """What a chunk became."""

    x: NDArray[np.float32]  # [m, d], combined features (P 3.2)
    h: NDArray[np.float32]  # [m, d], latent features (P 3.3)


class Session:
    """A stream over an engine; several sessions may share one engine.

    Args:
        engine: a loaded engine, or the folder of a bundle.
        chunk_seconds: length of a chunk, where it is another than the contract's (see ``Source.chunk_seconds``).
    """

    def __init__(self, engine: Engine | str | Path, chunk_seconds: float | None = None) -> None:
        self.engine = engine if isinstance(engine, Engine) else Engine(engine)
        self.contract = self.engine.contract
        self._features = ChunkFeatures(self.contract.clip, chunk_seconds)
        self._memory_spec = self.contract.graphs[TEXT].input("memory")
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next chunk is the first of a new stream."""
        self._features.reset()
        self._chunks = 0
        self._states = {name: self.engine.initial(name) for name in (ENCODER_COMBINER, LATENT)}
        self._memory = np.zeros(self._memory_spec.shape, np.float32)
        self._memory_valid = np.zeros(self._memory_spec.shape[:2], np.bool_)

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
        """Bytes that this stream keeps between chunks. It never grows."""
        return sum(array.nbytes for array in self._arrays().values())

    @property
    def memory(self) -> tuple[Array, Array]:
        """What the text model looks at: h of the last R chunks [1, R*m, d], and which of it is there [1, R*m]."""
        return self._memory, self._memory_valid

    def push(self, video: Frames | None, samples: Samples | None) -> Latents:
        """Take in the next chunk; ``None`` stands for a modality that is not there.

        Args:
            video: uint8 [K, H*3/2, W], planar YUV 4:2:0.
            samples: float32 [S], mono, as many as ``self.samples`` says.

        Raises:
            ValueError: another shape or type, or samples that are not finite; the stream is as before.
        """
        return self.push_features(self._features.push(video, samples))

    def push_features(self, inputs: Inputs) -> Latents:
        """The same from features that were made elsewhere; in one stream, use this or :meth:`push`."""
        x, combiner = self.engine.encoder_combiner(
            inputs.video, inputs.audio, inputs.video_present, inputs.audio_present, self._states[ENCODER_COMBINER]
        )
        h, latent = self.engine.latent(x, self._states[LATENT])
        self._states = {ENCODER_COMBINER: combiner, LATENT: latent}
        self._chunks += 1
        self._remember(h, inputs.video_present or inputs.audio_present)
        return Latents(x[0], h[0])

    def _remember(self, h: Array, present: bool) -> None:
        """Newest last, the oldest chunk lets go of its place. A chunk that held nothing keeps its place in time."""
        self._memory = np.concatenate([self._memory[:, h.shape[1] :], h], axis=1)
        valid = np.full(h.shape[:2], present)
        self._memory_valid = np.concatenate([self._memory_valid[:, h.shape[1] :], valid], axis=1)

    def ask(self, question: str, max_tokens: int | None = None) -> str:
        """The answer to ``question`` about what the stream has shown so far."""
        return self.engine.tokenizer.decode(self.answer_ids(question, max_tokens))

    def ask_stream(self, question: str, max_tokens: int | None = None) -> Iterator[str]:
        """The answer piece by piece, each as soon as it is known; joined they are :meth:`ask`'s."""
        ids: list[int] = []
        said = ""
        for token in self.answer_ids(question, max_tokens):
            ids.append(token)
            text = self.engine.tokenizer.decode(ids)
            if len(text) > len(said):
                yield text[len(said) :]
                said = text

    def answer_ids(self, question: str, max_tokens: int | None = None) -> Iterator[int]:
        """Greedy tokens of the answer, without the end mark.

        Raises:
            MirasolError: the stream has shown nothing yet, or the question leaves no room in the text cache.
        """
        if not self._memory_valid.any():
            raise MirasolError("there is nothing to ask about: no chunk that is remembered held video or audio")
        prompt = self.engine.prompt(question)
        room = self.contract.model.max_text - len(prompt)
        limit = min(room, self.contract.model.max_answer if max_tokens is None else max_tokens)
        return self._greedy(prompt, limit, self._memory, self._memory_valid)

    def _greedy(self, prompt: list[int], limit: int, memory: Array, valid: Array) -> Iterator[int]:
        states = self.engine.initial(TEXT)
        for token in prompt[:-1]:
            _, states = self.engine.text(token, memory, valid, states)
        token = prompt[-1]
        for _ in range(limit):
            logits, states = self.engine.text(token, memory, valid, states)
            token = int(logits[0].argmax())
            if token == self.contract.tokenizer.eos:
                return
            yield token

    def snapshot(self) -> Snapshot:
        """Everything this stream remembers as named arrays: fit for ``numpy.savez``."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def _arrays(self) -> Snapshot:
        arrays = {f"features/{name}": array for name, array in self._features.snapshot().items()}
        for graph, states in self._states.items():
            arrays |= {f"{graph}/{name}": array for name, array in states.items()}
        arrays |= {"memory": self._memory, "memory_valid": self._memory_valid, "chunks": np.array(self._chunks)}
        arrays["bundle"] = np.frombuffer(bytes.fromhex(self.contract.sha256), np.uint8)
        return arrays

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a :meth:`snapshot` of this or another session over the same bundle.

        Raises:
            MirasolError: the snapshot belongs to another bundle, or is incomplete.
        """
        own = self._arrays()
        if not np.array_equal(snapshot.get("bundle", np.zeros(0)), own["bundle"]):
            raise MirasolError(f"the snapshot was not taken over the bundle {self.engine.bundle}")
        for name, array in own.items():
            other = snapshot.get(name)
            if other is None or (other.shape, other.dtype) != (array.shape, array.dtype):
                raise MirasolError(f"the snapshot's {name} is missing or has another shape than {array.shape}")
        self._features.restore({name: snapshot[f"features/{name}"] for name in self._features.snapshot()})
        for graph, states in self._states.items():
            self._states[graph] = {name: snapshot[f"{graph}/{name}"].copy() for name in states}
        self._chunks = int(snapshot["chunks"])
        self._memory = snapshot["memory"].astype(np.float32)
        self._memory_valid = snapshot["memory_valid"].astype(np.bool_)
