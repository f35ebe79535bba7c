"""Faults outside the program while shards are made: disks, kills, crashes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.media import TINY_CLIP, write_data
from support.scratch import LIMIT

from mirasol.core.errors import MirasolError
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec

ONE = ShardsSpec(clips_per_shard=3, workers=1)
BUILD = """
import sys
from mirasol.core.errors import MirasolError
from mirasol.data.shards.build import build_shards
from mirasol.media.clip import ClipSpec
from mirasol.data.shards.config import ShardsSpec
if __name__ == "__main__":
    clip = ClipSpec(fps=8.0, chunks=2, frames_per_chunk=2, size=16, sample_rate=8000, mels=8, audio_bands=4)
    try:
        build_shards(sys.argv[1], sys.argv[2], clip, ShardsSpec(clips_per_shard=7, workers=2))
    except MirasolError as error:
        sys.exit(f"refused: {error}")
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("faults") / "data", 60, questions=1)


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def building(data: Path, out: Path, script: Path) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own, with its children ended afterwards whatever happened."""
    script.write_text(BUILD)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, str(script), str(data), str(out)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield run
    finally:
        run.kill()
        run.wait()
        run.stderr.close()


def workers_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The two processes that decode, once they are there."""
    for _ in range(1000):
        if len(found := decoders_of(run)) == 2:
            return found
        time.sleep(0.01)
    raise AssertionError("the processes that decode did not start within 10 s")


def decoders_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that decode and are there at the moment."""
    with contextlib.suppress(psutil.Error):
        return [p for p in psutil.Process(run.pid).children() if "sandbox import serve" in " ".join(p.cmdline())]
    return []


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        with pytest.raises(MirasolError, match="the disk is full: free some space"):
            build_shards(data, disk / "shards", TINY_CLIP, ONE)
        assert list((disk / "shards").iterdir()) == []


def test_a_read_only_disk_is_one_clear_error(data: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "ro") as disk, pytest.raises(MirasolError, match="the file system is read-only"):
        build_shards(data, disk / "shards", TINY_CLIP, ONE)


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota is used up")])
def test_a_disk_that_fills_up_at_the_last_moment(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def full(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MirasolError, match=said):
        build_shards(data, tmp_path / "shards", TINY_CLIP, ONE)
    assert list((tmp_path / "shards").iterdir()) == []


def test_processes_that_die_again_are_told_with_their_files(data: Path, tmp_path: Path) -> None:
    with building(data, tmp_path / "shards", tmp_path / "build.py") as run:
        until = time.monotonic() + LIMIT
        while run.poll() is None and time.monotonic() < until:
            for process in decoders_of(run):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.01)
        _, said = run.communicate(timeout=LIMIT)
    assert run.returncode == 1
    assert "refused: the process that decodes was killed twice" in said and "media/" in said
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_process_that_dies_once_is_replaced_and_nothing_is_lost(data: Path, tmp_path: Path) -> None:
    build_shards(data, tmp_path / "whole", TINY_CLIP, ShardsSpec(clips_per_shard=7, workers=1))
    with building(data, tmp_path / "shards", tmp_path / "build.py") as run:
        workers_of(run)[0].kill()
        _, said = run.communicate(timeout=LIMIT)
    assert run.returncode == 0, said
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")


def test_a_killed_run_leaves_no_process_and_the_next_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    build_shards(data, tmp_path / "whole", TINY_CLIP, ShardsSpec(clips_per_shard=7, workers=1))
    with building(data, tmp_path / "shards", tmp_path / "build.py") as run:
        workers = workers_of(run)
        while not list((tmp_path / "shards").glob("*.tar")):  # in the middle of it
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert not (tmp_path / "shards/shards.json").exists()
        gone, alive = psutil.wait_procs(workers, timeout=LIMIT)
        assert (len(gone), alive) == (2, [])
    build_shards(data, tmp_path / "shards", TINY_CLIP, ShardsSpec(clips_per_shard=7, workers=1))
    assert contents(tmp_path / "shards") == contents(tmp_path / "whole")
