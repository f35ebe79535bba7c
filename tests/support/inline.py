"""Work done in this process, at once: for tests that count calls or fork."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

from mirasol.data.shards.config import ShardsSpec
from mirasol.data.shards.executors import Workers


class Inline(Executor):
    """Does every job when it is handed over."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def inline_workers(spec: ShardsSpec, most: int) -> Iterator[Workers]:
    """In the place of ``open_workers``."""
    yield Workers(Inline(), 1)
