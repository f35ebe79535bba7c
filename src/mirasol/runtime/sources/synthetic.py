"""Clips of the built-in world as an endless stream, for a machine without a camera or a video file."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mirasol.media.clip import ClipSpec
from mirasol.runtime.sources.files import Chunk, FileSource, joined, refuse_spread

SYNTHETIC = "synthetic"


class SyntheticSource:
    """Clips of the built-in world, one after another, each written to a file and read back.

    Raises MirasolError if the model spreads its chunks over a whole file.
    """

    def __init__(self, clip: ClipSpec, seed: int = 0) -> None:
        refuse_spread(SYNTHETIC, clip)
        self.clip, self.seed, self.chunk_seconds = clip, seed, clip.chunk_seconds

    def __iter__(self) -> Iterator[Chunk]:
        with tempfile.TemporaryDirectory(prefix="mirasol-synthetic-") as folder:
            yield from joined(self._clips(Path(folder) / "clip.mp4"), self.clip)

    def _clips(self, path: Path) -> Iterator[FileSource]:
        # Imported here: only this source uses the demonstration's code.
        from mirasol.data.world.scene import sample_clip
        from mirasol.data.world.video import encode

        for index in itertools.count():
            path.write_bytes(encode(sample_clip(self.seed, "test", index)))
            yield FileSource(path, self.clip)
