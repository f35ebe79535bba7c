"""Processes agree on a start and learn why another ended; here threads with one store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch.distributed import HashStore

from mirasol.core.errors import MirasolError, PeerError
from mirasol.training import ranks as module
from mirasol.training.ranks import Ranks
from mirasol.training.stopping import STATUS

RESET = ConnectionResetError("Connection reset by peer")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT", 0.4)
    monkeypatch.setattr(module, "BEAT", 0.05)


def together(*work: Callable[[Ranks], Any]) -> list[Any]:
    """Each ``work`` as one process; what it returned or raised."""
    store = HashStore()

    def run(rank: int) -> Any:
        ranks = Ranks()
        ranks.store, ranks.rank, ranks.world, ranks.limit, ranks.host = store, rank, len(work), 5.0, f"n{rank}"
        try:
            with ranks.watched():
                return work[rank](ranks)
        except BaseException as error:
            return error

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, range(len(work))))


def fail(error: BaseException) -> Callable[[Ranks], None]:
    def raise_it(ranks: Ranks) -> None:
        raise error

    return raise_it


def test_all_get_what_the_first_decides() -> None:
    assert together(*[lambda ranks: ranks.agree("start", lambda: ranks.rank + 7)] * 3) == [7, 7, 7]


def test_an_error_of_the_decision_is_everybodys() -> None:
    def refuse() -> None:
        raise MirasolError("refused")

    found = together(*[lambda ranks: ranks.agree("start", refuse)] * 2)
    assert [str(error) for error in found] == ["refused", "refused"]


def test_a_fault_of_one_process_stops_all_and_names_it() -> None:
    found = together(*[lambda ranks: ranks.check("ready", "no file" if ranks.rank else "")] * 2)
    assert [str(error) for error in found] == ["no file (process 1 on n1)"] * 2


def test_one_process_decides_and_checks_alone() -> None:
    ranks = Ranks()
    ranks.check("ready", "")
    assert ranks.agree("start", lambda: 3) == 3


def test_the_error_behind_a_broken_connection_is_told_with_its_process() -> None:
    first, _ = together(fail(RESET), fail(KeyError("h")))
    assert isinstance(first, PeerError)
    assert str(first) == "process 1 on n1 failed: KeyError: 'h'"
    assert (first.causes[0]["rank"], first.transient) == (1, False)


def test_who_waits_for_one_that_failed_learns_it() -> None:
    first, _ = together(lambda ranks: ranks._wait("ready/1", 1), fail(KeyError("h")))
    assert "process 1 on n1 failed" in str(first)


def test_a_process_that_was_stopped_stops_the_others() -> None:
    first, _ = together(fail(RESET), fail(SystemExit(STATUS)))
    assert isinstance(first, SystemExit)
    assert first.code == STATUS


def until_the_first_left(ranks: Ranks) -> None:
    while ranks._get("left/0") is None:
        time.sleep(0.01)


def test_a_silent_process_is_named_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = Ranks._live
    monkeypatch.setattr(Ranks, "_live", lambda self, done: None if self.rank else lives(self, done))

    def survive(ranks: Ranks) -> None:
        ranks._wait("life/1", 1)  # it has begun
        ranks.step = 12
        raise RESET

    first, _ = together(survive, until_the_first_left)
    assert isinstance(first, PeerError)
    assert "process 1 on n1 does not answer; it last finished step 12" in str(first)
    assert (first.causes[0]["rank"], first.transient) == (1, True)


def test_a_late_process_is_named_with_its_work() -> None:
    def late(ranks: Ranks) -> None:
        ranks.doing = "waits for data"
        until_the_first_left(ranks)

    first, _ = together(fail(RuntimeError("Timed out waiting 8000ms for recv operation to complete")), late)
    assert "process 1 on n1 was waited for longer than training.timeout, 5 s" in str(first)
    assert "(waits for data)" in str(first)


def test_a_connection_that_fails_while_all_live_is_no_timeout() -> None:
    first, _ = together(fail(RuntimeError("NCCL error: unhandled system error")), until_the_first_left)
    assert "the connection of process 0 on n0 failed after step 0" in str(first)
    assert "NCCL error: unhandled system error" in str(first)
    assert "training.timeout" not in str(first)


def test_a_process_that_is_stuck_when_the_run_is_over_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(module, "STUCK", 0.0)
    monkeypatch.setattr(module.os, "_exit", lambda status: ended.set())
    _, stuck = together(fail(KeyError("h")), lambda ranks: ended.wait(10))
    assert stuck is True
