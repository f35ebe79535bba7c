"""What the processes of a run tell each other besides tensors: where they start, how far they are, why they fail.

It goes through the store of their rendezvous, a small server that torchrun keeps: no shared folder is needed, and it
answers while a process is stuck in a collective.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from mirasol.core.errors import MirasolError, PeerError, is_secondary, text_of
from mirasol.training.stopping import STATUS, Stopping

BEAT = 0.5  # seconds between signs of life
SILENT = 3.0  # seconds without one after which a process counts as stopped
STUCK = 8.0  # seconds after the end of another process until one that still works is ended
POLL = 0.02  # seconds
WAITS = "waits for the others"
ANSWER = datetime.timedelta(seconds=10)  # of the store

_TIMEOUT = re.compile(r"time(d)?[ -]?out", re.IGNORECASE)  # in texts of gloo, NCCL and the store
_joined = itertools.count()  # runs of this process, in the same order in all: each has its own keys


@dataclasses.dataclass(frozen=True)
class Life:
    """The last sign of life of a process: ``number`` counts them, ``step`` is its last finished one."""

    number: int
    host: str
    step: int
    doing: str


class Ranks:
    """The processes of one run, seen from one of them; a single process has no store."""

    def __init__(self) -> None:
        self.store: Store | None = None
        self.rank, self.world, self.limit = 0, 1, 0.0  # limit: seconds to wait for what another process must say
        self.stopping = Stopping()
        self.host = platform.node()
        self.step, self.doing = 0, "the start"  # of this process; told with the next sign of life
        self._beats = 0

    def agree(self, topic: str, decide: Callable[[], Any]) -> Any:
        """What ``decide`` of the first process returned, plain JSON, in all; or its :class:`MirasolError`."""
        if self.store is None:
            return decide()
        if self.rank == 0:
            try:
                found = {"value": decide()}
            except MirasolError as error:
                found = {"error": str(error)}
            self._set(topic, found)
        else:
            found = self._wait(topic, 0)
        if "error" in found:
            raise MirasolError(found["error"])
        return found["value"]

    def check(self, topic: str, fault: str) -> None:
        """Raise one :class:`MirasolError` in all processes if any has a ``fault``; an empty one is none."""
        if self.store is None:
            faults = [fault] if fault else []
        else:
            self._set(f"{topic}/{self.rank}", f"{fault} (process {self.rank} on {self.host})" if fault else "")
            faults = [text for rank in range(self.world) if (text := self._wait(f"{topic}/{rank}", rank))]
        if faults:
            raise MirasolError("\n".join(faults))

    def gather(self, topic: str, value: Any) -> list[Any]:
        """The ``value`` of each process, plain JSON, by rank, in all."""
        if self.store is None:
            return [value]
        self._set(f"{topic}/{self.rank}", {"value": value})
        return [self._wait(f"{topic}/{rank}", rank)["value"] for rank in range(self.world)]

    def meet(self, topic: str, hurry: threading.Event) -> None:
        """Tell that this process has done ``topic``; the first one waits until all have. Any thread may call it.

        Args:
            hurry: once it is set, others get seconds: the run has failed, and perhaps their process is gone.

        Raises:
            ConnectionError: another process fails before, or needs longer than the limit.
        """
        if self.store is None:
            return
        keys = [f"{topic}/{rank}" for rank in range(self.world)]
        self._set(keys[self.rank], True)
        for rank, key in enumerate(keys if self.rank == 0 else []):
            self._wait(key, rank, hurry)
            self.store.delete_key(key)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Tell the others that this process lives, and why it ends; a broken connection gets the cause behind it.

        Raises:
            PeerError: this process failed because another did.
            SystemExit: another was stopped by SIGTERM.
        """
        if self.store is None:
            yield
            return
        done = threading.Event()
        self._beat()
        threading.Thread(target=self._live, args=(done,), daemon=True).start()
        try:
            yield
        except Exception as error:
            self._over()
            if is_secondary(error):
                raise self._explained(error) from error
            self._tell(type=type(error).__name__, error=text_of(error), transient=False)
            raise
        except SystemExit as leaving:
            if leaving.code == STATUS:
                self._tell(stopped=True)
            raise
        finally:
            done.set()
            with contextlib.suppress(RuntimeError):
                self._set(f"left/{self.rank}", True)

    def _explained(self, error: Exception) -> BaseException:
        """The error that explains a broken connection: causes that others told, or those who fell silent."""
        with contextlib.suppress(RuntimeError):  # the store is gone with its process
            before, end = self._lives(), time.monotonic() + SILENT
            self.doing = WAITS
            while time.monotonic() < end:
                causes = [cause for rank in range(self.world) if (cause := self._get(f"cause/{rank}"))]
                if any(cause.get("stopped") for cause in causes):
                    return SystemExit(STATUS)
                if causes:
                    told = [f"process {cause['rank']} on {cause['host']} failed: {cause['error']}" for cause in causes]
                    return PeerError("\n".join(told), causes, transient=False)
                time.sleep(POLL)
            return self._silent(before, self._lives(), error) or self._broken(error)
        return PeerError(f"the processes lost each other after step {self.step}: {text_of(error)}", transient=True)

    def _broken(self, error: Exception) -> PeerError:
        """All live and nobody is late: the connection itself failed, as of a network card that NCCL cannot use."""
        text = f"the connection of process {self.rank} on {self.host} failed after step {self.step} ({self.doing})"
        cause = self._cause(type="Connection", error=f"{text}: {text_of(error)}", transient=True)
        return PeerError(f"{cause['error']}. Run again to resume", [cause], transient=True)

    def _silent(self, before: dict[int, Life], now: dict[int, Life], error: Exception) -> PeerError | None:
        """Names the processes without a new sign of life; where all live, those that a timeout waited for."""
        left = {rank for rank in range(self.world) if self._get(f"left/{rank}")}
        gone = [rank for rank in range(self.world) if before.get(rank) == now.get(rank) and rank not in left]
        if not gone and not _TIMEOUT.search(str(error)):
            return None
        late = [rank for rank in now if rank not in left and now[rank].doing != WAITS] or [*now]
        causes = []
        for rank in gone or late:
            life = now.get(rank, Life(0, "an unknown host", 0, "did not begin"))
            step = max(life.step, self.step)  # after each step they agreed
            ends = "does not answer" if gone else f"was waited for longer than training.timeout, {self.limit:g} s"
            text = f"process {rank} on {life.host} {ends}; it last finished step {step} ({life.doing})"
            causes.append(self._cause(type="Vanished" if gone else "Late", error=text, transient=True))
            causes[-1] |= {"rank": rank, "host": life.host}
        advice = "killed, stopped, out of memory, or its machine is gone" if gone else text_of(error)
        told = "; ".join(cause["error"] for cause in causes)
        return PeerError(f"{told}: {advice}. Run again to resume", causes, transient=True)

    def _live(self, done: threading.Event) -> None:
        """Give signs of life; end a process that is stuck while the run is over, whose others have named it."""
        end = 0.0
        with contextlib.suppress(RuntimeError):  # the store is gone: the next collective says so
            while not done.wait(BEAT):
                self._beat()
                end = end or (time.monotonic() + STUCK if self._get("over") else 0.0)
                if end and time.monotonic() > end:
                    os._exit(1)

    def _beat(self) -> None:
        self._beats += 1
        self._set(f"life/{self.rank}", [self._beats, self.host, self.step, self.doing])

    def _lives(self) -> dict[int, Life]:
        found = {rank: self._get(f"life/{rank}") for rank in range(self.world)}
        return {rank: Life(*value) for rank, value in found.items() if value}

    def _cause(self, **facts: Any) -> dict[str, Any]:
        return facts | {"rank": self.rank, "host": self.host, "time": time.time()}

    def _over(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._set("over", True)

    def _tell(self, **facts: Any) -> None:
        with contextlib.suppress(RuntimeError):
            self._set(f"cause/{self.rank}", self._cause(**facts))

    def _set(self, key: str, value: Any) -> None:
        assert self.store is not None
        self.store.set(key, json.dumps(value))

    def _get(self, key: str) -> Any:
        """The value of ``key``, ``None`` if nobody has set it."""
        assert self.store is not None
        return json.loads(self.store.get(key)) if self.store.check([key]) else None

    def _wait(self, key: str, rank: int, hurry: threading.Event | None = None) -> Any:
        """The value of ``key``, which process ``rank`` sets.

        Raises:
            ConnectionError: it fails before, or needs longer than the limit, or than ``SILENT`` seconds after
                ``hurry``; :meth:`watched` finds the cause.
        """
        end = time.monotonic() + self.limit
        while (value := self._get(key)) is None:
            if hurry is not None and hurry.is_set():
                end, hurry = min(end, time.monotonic() + SILENT), None
            if self._get(f"cause/{rank}") or time.monotonic() > end:
                raise ConnectionError(f"process {rank} did not say its {key}: failed or timed out")
            time.sleep(POLL)
        return value


@contextlib.contextmanager
def join(limit: float) -> Iterator[Ranks]:
    """This process among those that torchrun started, alone without torchrun; takes SIGTERM meanwhile.

    Args:
        limit: seconds to wait for what another process must say.

    Raises:
        PeerError: this process failed because another did.
        SystemExit: SIGTERM came, here or in another process.
    """
    number, ranks = next(_joined), Ranks()
    with ranks.stopping:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ:
            store, rank, world = next(rendezvous("env://", timeout=datetime.timedelta(seconds=limit)))
            store.set_timeout(ANSWER)
            ranks.store, ranks.rank, ranks.world = PrefixStore(f"mirasol/{number}", store), rank, world
            ranks.limit = limit
        with ranks.watched():
            yield ranks
