"""Checkpoints are written beside the steps that follow: a step waits only for a copy of its state (decision 0087)."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mirasol.training.ranks import Ranks

Write = Callable[[Any], None]


class Saving:
    """Writes one state at a time, in a thread that calls no collective."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()
        self.after: Callable[[], None] | None = None  # in the thread, once the checkpoint is in place
        self._buffers: dict[str, Tensor] = {}  # host memory, pinned for a GPU, reused by the next save
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._hurry = threading.Event()

    def begin(self, state: Any, write: Write) -> None:
        """Copy ``state``, nested containers of tensors and plain values, and call ``write`` of the copy in the thread.

        Raises:
            Exception: that of the save before, which ends first.
        """
        self.wait()
        kept = self._buffers
        self._buffers = {}
        copied = self._copied(state, "", kept)
        if any(buffer.is_pinned() for buffer in self._buffers.values()):
            torch.cuda.current_stream().synchronize()
        self._thread = threading.Thread(target=self._run, args=(write, copied), name="checkpoint", daemon=True)
        self._thread.start()

    def meet(self, topic: str) -> None:
        """Tell that this process has done ``topic``; the first one waits for all. Through the store: no collective.

        Raises:
            ConnectionError: another process failed before, or needs longer than `training.timeout`.
        """
        self.ranks.meet(topic, self._hurry)

    def check(self) -> None:
        """Raise the error of the save in the background, if it has failed."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self) -> None:
        """Wait for the end of the save; raises its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def finish(self) -> None:
        """As :meth:`wait` when the run has failed: waits for other processes for seconds only, and raises nothing."""
        self._hurry.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, write: Write, copied: Any) -> None:
        try:
            write(copied)
            if self.after is not None:
                self.after()
        except BaseException as error:
            self._error = error

    def _copied(self, tree: Any, name: str, kept: dict[str, Tensor]) -> Any:
        if isinstance(tree, Tensor):
            tree = tree.detach()
            buffer = kept.get(name)
            if buffer is None or (buffer.shape, buffer.dtype) != (tree.shape, tree.dtype):
                buffer = torch.empty_like(tree, device="cpu", pin_memory=tree.is_cuda)
            self._buffers[name] = buffer
            return buffer.copy_(tree, non_blocking=True)
        if isinstance(tree, dict):
            found = copy.copy(tree)
            found.update({key: self._copied(value, f"{name}/{key}", kept) for key, value in tree.items()})
            return found
        if isinstance(tree, list | tuple):
            return type(tree)([self._copied(value, f"{name}/{number}", kept) for number, value in enumerate(tree)])
        return copy.deepcopy(tree)
