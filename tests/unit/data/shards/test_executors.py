"""Executors: processes of this machine, and a real Dask cluster with dying workers."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.inline import Inline
from support.media import TINY_CLIP
from support.scratch import LIMIT
from support.shards import TinyShards

from mirasol.core.errors import MirasolError
from mirasol.data.shards import executors
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.data.shards.encode import EncodedClip
from mirasol.data.shards.encoded_cache import EncodedCache
from mirasol.data.shards.executors import JOBS_AHEAD, Workers, WorkersDied, open_workers, run_jobs
from mirasol.media.sandbox import sandboxed


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def die(path: Path) -> str:
    if path.stem == "3":
        os.kill(os.getpid(), signal.SIGKILL)
    return path.stem


def die_guarded(number: int) -> str:
    return sandboxed(die, Path(f"{number}.mp4"))


def guarded_pid(_: int) -> int:
    return sandboxed(os.getpid)


def test_results_come_in_the_order_of_the_jobs() -> None:
    assert list(run_jobs(abs, [-3, 1, -2], Workers(Inline(), 1))) == [3, 1, 2]


def test_no_more_jobs_are_in_flight_than_may_wait() -> None:
    handed: list[int] = []
    results = run_jobs(handed.append, list(range(100)), Workers(Inline(), 2))
    next(results)
    assert len(handed) == 2 * JOBS_AHEAD


def test_an_error_or_ctrl_c_does_not_wait_for_the_films_under_way() -> None:
    begun = threading.Event()

    def film(_: int) -> None:
        sandboxed(os.getpid)
        begun.set()
        sandboxed(time.sleep, 3600)

    with pytest.raises(KeyboardInterrupt), open_workers(ShardsSpec(workers=1), 9) as workers:
        job = workers.executor.submit(film, 0)
        assert begun.wait(60)
        raise KeyboardInterrupt
    assert isinstance(job.exception(), CancelledError)  # and no verdict about the film, after a minute


def test_a_process_that_dies_is_told_with_its_job() -> None:
    with open_workers(ShardsSpec(workers=1), 9) as workers, pytest.raises(MirasolError, match=r"killed twice.*3\.mp4"):
        list(run_jobs(die_guarded, list(range(5)), workers))


def test_every_worker_has_one_process_and_keeps_it() -> None:
    with open_workers(ShardsSpec(workers=2), 9) as workers:
        pids = list(run_jobs(guarded_pid, list(range(8)), workers))
    assert 1 <= len(set(pids)) <= 2 and os.getpid() not in pids
    assert psutil.wait_procs([psutil.Process(p) for p in set(pids) if psutil.pid_exists(p)], timeout=LIMIT)[1] == []


def test_dask_without_an_address_is_told() -> None:
    pytest.importorskip("distributed", reason="Dask is not installed: `make setup`")
    with pytest.raises(MirasolError, match=r"shards.address is empty"), open_workers(ShardsSpec(executor="dask"), 1):
        pass


def test_a_scheduler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed: `make setup`")
    monkeypatch.setattr(executors, "CLUSTER_WAIT", 1)
    spec = ShardsSpec(executor="dask", address="tcp://127.0.0.1:1")
    with pytest.raises(MirasolError, match="no Dask scheduler can be reached"), open_workers(spec, 1):
        pass


@contextlib.contextmanager
def cluster(failures: int) -> Iterator[Any]:
    """A real cluster of two processes whose scheduler gives a job up after so many deaths of workers."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: `make setup`")
    import dask

    settings = {"distributed.scheduler.allowed-failures": failures, "distributed.comm.timeouts.connect": "2s"}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
    ):
        yield local


def test_a_cluster_that_loses_a_worker_gives_the_same_bytes(
    tiny_shards: TinyShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    write = EncodedCache.write

    def write_and_kill(store: EncodedCache, name: str, part: list[EncodedClip]) -> None:
        if not killed:  # the first part has come back: all others are under way, waiting, or lie with a worker
            killed.append(next(iter(local.workers.values())).pid)
            os.kill(killed[0], signal.SIGKILL)
        write(store, name, part)

    monkeypatch.setattr(EncodedCache, "write", write_and_kill)
    monkeypatch.setattr("mirasol.data.shards.encode.JOB_CLIPS", 1)
    with cluster(failures=3) as local:
        spec = ShardsSpec(clips_per_shard=3, executor="dask", address=local.scheduler_address)
        build_shards(tiny_shards.data, tmp_path / "shards", TINY_CLIP, spec)
    assert len(killed) == 1
    assert contents(tmp_path / "shards") == contents(tiny_shards.folder)


def test_a_job_that_kills_every_worker_of_a_cluster_is_told() -> None:
    with cluster(failures=0) as local:
        spec = ShardsSpec(executor="dask", address=local.scheduler_address)
        with open_workers(spec, 1) as workers, pytest.raises(WorkersDied) as died:
            list(run_jobs(os._exit, [7], workers))
    assert died.value.jobs == [7]
