"""Workers of the shards stage: threads of this process or a Dask cluster, as a ``concurrent.futures.Executor``.

A thread only waits for its sandbox (``mirasol.media.sandbox``), where the work runs. A pool of processes would load the
libraries a second time and copy every clip once more.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mirasol.core.errors import MirasolError, install
from mirasol.data.shards.config import ShardsSpec
from mirasol.media.sandbox import cancel_on

J = TypeVar("J")
R = TypeVar("R")

JOBS_AHEAD = 4  # jobs per worker whose results may wait
CLUSTER_WAIT = 60  # seconds until a cluster must have a worker


class WorkersDied(Exception, Generic[J]):
    """Workers died; ``jobs`` are those that were running and are lost."""

    def __init__(self, jobs: list[J]) -> None:
        super().__init__(jobs)
        self.jobs = jobs


@dataclass(frozen=True)
class Workers:
    """An executor, the number of jobs it runs at a time, and the errors that mean a dead worker."""

    executor: Executor
    slots: int
    died: tuple[type[BaseException], ...] = ()


def run_jobs(function: Callable[[J], R], jobs: Iterable[J], workers: Workers) -> Iterator[R]:
    """Results in the order of the jobs, with at most JOBS_AHEAD jobs per slot in flight.

    Raises:
        WorkersDied: a worker died and no other took its job.
    """
    flying: collections.deque[tuple[J, Future[R]]] = collections.deque()
    try:
        for job in jobs:
            flying.append((job, workers.executor.submit(function, job)))
            if len(flying) >= JOBS_AHEAD * workers.slots:
                yield flying[0][1].result()
                flying.popleft()
        while flying:
            yield flying[0][1].result()
            flying.popleft()
    except workers.died as error:
        lost = [job for job, future in flying if future.done() and (future.cancelled() or future.exception())]
        raise WorkersDied(lost or [job for job, _ in flying][:1]) from error


@contextlib.contextmanager
def open_workers(spec: ShardsSpec, most: int) -> Iterator[Workers]:
    """The workers of ``spec``, at most ``most`` threads. The end of the block cancels waiting and running jobs.

    Raises:
        MirasolError: the cluster cannot be reached or has no worker, or Dask is not installed.
    """
    opened = _dask(spec.address) if spec.executor == "dask" else _threads(max(1, min(spec.workers, most)))
    with opened as workers:
        yield workers


@contextlib.contextmanager
def _threads(count: int) -> Iterator[Workers]:
    stop = threading.Event()
    pool = ThreadPoolExecutor(count, thread_name_prefix="shards", initializer=cancel_on, initargs=(stop,))
    try:
        yield Workers(pool, count)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Workers]:
    """The workers of a running cluster. Its scheduler gives the jobs of a dead worker to another one."""
    try:
        distributed: Any = importlib.import_module("distributed")  # by name: it is optional and only partly typed
        killed = importlib.import_module("distributed.scheduler").KilledWorker
    except ImportError as error:
        raise MirasolError(f"shards.executor = dask: {error}: run {install('dask')}") from error
    if not address:
        raise MirasolError("shards.executor = dask: shards.address is empty, expected one like tcp://host:8786")
    try:
        client = distributed.Client(address, timeout=CLUSTER_WAIT, set_as_default=False)
    except (OSError, ValueError) as error:  # a TimeoutError is an OSError
        raise MirasolError(f"shards.address = {address}: no Dask scheduler can be reached: {error}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=CLUSTER_WAIT)
        except TimeoutError as error:
            raise MirasolError(f"shards.address = {address}: no worker after {CLUSTER_WAIT} s") from error
        # pure=False: otherwise Dask would hash all that equal jobs hold
        executor = client.get_executor(pure=False)
        try:
            yield Workers(executor, max(1, sum(client.ncores().values())), (killed, CancelledError))
        finally:
            executor.shutdown(wait=False)
