"""SIGTERM is a flag that all processes of a run agree on after each step: they save that step and leave with 143."""

from __future__ import annotations

import datetime
import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector

STATUS = 128 + signal.SIGTERM


class Stopping:
    """Takes SIGTERM during the ``with`` block.

    Between :meth:`begin` and :meth:`end` the handler only sets a flag: a signal can interrupt any line, a collective
    among them, and a handler that talks to other processes then waits forever. Elsewhere no step can be lost, and the
    process leaves at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._stepping = False
        self._group: Any = None  # of CPUs, for the flag; None for one process
        self._before: Any = None

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end()
        if self._before is not None:  # one that leaves is not to be ended before its status
            leaves = kind is not None and issubclass(kind, SystemExit)
            signal.signal(signal.SIGTERM, signal.SIG_IGN if leaves else self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self._stepping:
            raise SystemExit(STATUS)

    def begin(self, world: int, limit: float) -> None:
        """Steps begin; every process of ``world`` calls it. An agreement takes ``limit`` seconds at most."""
        if world > 1 and self._group is None:
            self._group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=limit))
        self._stepping = True

    def end(self) -> None:
        """The last step is done."""
        self._stepping = False

    def agreed(self) -> bool:
        """Whether any process got SIGTERM; every process calls it after a step, and all get the same answer.

        One process asks nobody. Several exchange one number by their CPUs: no GPU is waited for.
        """
        if self._group is None:
            return self.asked
        flag = torch.tensor([self.asked], dtype=torch.int32)
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._group)
        return bool(flag.item())


class NoSignals(_SignalConnector):
    """Lightning without its handlers of SIGTERM, which broadcast while they interrupt another collective."""

    def register_signal_handlers(self) -> None:
        """Leave the handlers as they are."""


def take_signals(trainer: pl.Trainer) -> None:
    """Let :class:`Stopping` alone decide on SIGTERM; also spares a broadcast that waits for the GPU in every step."""
    trainer._signal_connector = NoSignals(trainer)
    vars(trainer.fit_loop.epoch_loop)["_broadcast_sigterm_tensor"] = lambda: None
