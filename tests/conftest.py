"""Shared by all tests: which tests are skipped, and signals in a suite that `nohup make test &` started."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """Let children receive signals that the suite itself was started to ignore.

    `nohup` ignores SIGHUP, and a shell without job control ignores SIGINT in what it starts with `&`. Programs inherit
    that, but not a handler: one that does nothing keeps the suite running and gives its children the default.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, _go_on)


def _go_on(*_: object) -> None:
    pass


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip ``gpu`` tests on a machine without one: `make test-gpu` says so instead of failing."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="torch finds no GPU on this machine"))
