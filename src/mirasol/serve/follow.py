"""The service follows a registry: when another release becomes current, new sessions use it.

The new engine is loaded and tried next to the old one, which answers meanwhile and then ends with its last session.
No more than two engines are in memory: a third release waits until the first has gone.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mirasol.core.errors import MirasolError
from mirasol.runtime.engine import Engine
from mirasol.runtime.releases import CURRENT, Registry, Release
from mirasol.runtime.samples import SAMPLES, read_samples
from mirasol.runtime.session import Session
from mirasol.serve.sessions import SessionManager

POLL_SECONDS = 2.0
RETRY_SECONDS = 60.0  # until a release that could not be loaded is tried again
log = logging.getLogger("mirasol.serve")


class Follower:
    """Gives each current release of ``registry`` to a :class:`SessionManager`.

    Args:
        load: loads the bundle in a folder.
        say: receives a line for each switch, and for each release that cannot be used.
    """

    def __init__(self, registry: Registry, load: Callable[[Path], Engine], say: Callable[[str], None] = print) -> None:
        self.registry, self._load, self._say = registry, load, say
        self._waiting = ""
        self._again = 0.0

    async def run(self, manager: SessionManager) -> None:
        """Look at the registry every ``POLL_SECONDS`` until cancelled."""
        while True:
            await self.look(manager)
            await asyncio.sleep(POLL_SECONDS)

    async def look(self, manager: SessionManager) -> None:
        """Take over the current release if it is another one; after any error the engine in use stays."""
        name = CURRENT
        try:
            release = await asyncio.to_thread(self.registry.get, CURRENT)
            name = release.name
            if release.folder == manager.engine.bundle:
                manager.failed = None
            elif name != manager.failed or time.monotonic() >= self._again:
                await self._switch(manager, release)
        except Exception as error:  # whatever it is, the service goes on
            if name == manager.failed and time.monotonic() < self._again:
                return  # an unreadable registry was reported
            manager.failed, self._again = name, time.monotonic() + RETRY_SECONDS
            manager.metrics.failed_switches.inc()
            if not isinstance(error, MirasolError):
                log.exception("the release %s cannot be loaded", name)
            self._say(f"warning: {name} cannot be used, {manager.release or 'the bundle in use'} stays: {error}")

    async def _switch(self, manager: SessionManager, release: Release) -> None:
        engine = manager.earlier()
        if engine is None or engine.bundle != release.folder:
            del engine  # else it would never go
            if all(s.engine is manager.engine for s in manager.sessions.values()):
                gc.collect()  # cycles of ended sessions may hold it
            if (earlier := manager.earlier()) is not None:
                if self._waiting != release.name:
                    self._say(f"{release.name} waits until the last session of {earlier.bundle.name} has ended")
                self._waiting = release.name
                return
            engine = await asyncio.to_thread(self._ready, release.folder)
            if (await asyncio.to_thread(self.registry.get, CURRENT)).folder != release.folder:
                return  # another one meanwhile
        manager.use(engine)
        self._waiting = ""
        self._say(f"{release.name} answers new sessions")

    def _ready(self, folder: Path) -> Engine:
        if (folder / SAMPLES).is_dir():
            read_samples(folder / SAMPLES)  # as at the start of the service
        engine = self._load(folder)
        warm_up(engine)
        return engine


def warm_up(engine: Engine) -> None:
    """Answer a question about a dark, silent chunk, so that every graph has run once.

    Raises:
        MirasolError: a graph fails, or the answer's probability is not a number.
    """
    clip = engine.contract.clip
    session = Session(engine)
    video = np.full((clip.frames_per_chunk, clip.size * 3 // 2, clip.size), 128, np.uint8)
    session.push(video, np.zeros(round(clip.chunk_seconds * clip.sample_rate), np.float32))
    answer = session.ask(next(iter(engine.contract.prompts or ()), "?"))
    if not math.isfinite(answer.score):
        raise MirasolError(f"{engine.bundle}: the probability of its first answer is {answer.score}: export it again")
