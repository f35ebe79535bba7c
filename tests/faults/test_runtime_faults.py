"""Faulty streams and bundles: a defined result or a clear error, never another stream's state."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.bundle import CLIP, QUESTION, random_chunk, tiny_bundle
from support.media import shown, tone, write_media
from support.scratch import LIMIT

from mirasol.core.errors import MirasolError
from mirasol.media.container import MediaError
from mirasol.runtime.contract import CONTRACT_FILE, read_contract
from mirasol.runtime.engine import Engine
from mirasol.runtime.model import load
from mirasol.runtime.session import Session
from mirasol.runtime.sources import resample
from mirasol.runtime.sources.files import Chunk, FileSource, FolderSource


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_bundle(), threads=1)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle(), tmp_path / "bundle"))


def streamed(engine: Engine, chunks: list[Chunk]) -> Session:
    session = Session(engine)
    for chunk in chunks:
        session.push(chunk.video, chunk.samples)
    return session


# A bundle that is not what was exported.


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_byte_flipped_in_any_file_is_refused_by_its_name(place: float, bundle: Path) -> None:
    for file in sorted(bundle.iterdir()):
        content = file.read_bytes()
        damaged = bytearray(content)
        damaged[int(place * len(content))] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(MirasolError, match=re.escape(file.name)):
            Engine(bundle)
        file.write_bytes(content)
    Engine(bundle)


def test_any_missing_file_is_named(bundle: Path) -> None:
    for file in sorted(bundle.iterdir()):
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(MirasolError, match=re.escape(file.name)):
            Engine(bundle)
        file.write_bytes(content)


def test_a_contract_of_another_version_says_both(bundle: Path) -> None:
    text = (bundle / CONTRACT_FILE).read_text()
    version = read_contract(bundle).version
    (bundle / CONTRACT_FILE).write_text(text.replace(f'"version": {version}', '"version": 99'))
    with pytest.raises(MirasolError, match=rf"contract version 99, but this mirasol reads version {version}"):
        Engine(bundle)


def test_a_truncated_contract(bundle: Path) -> None:
    os.truncate(bundle / CONTRACT_FILE, 500)
    with pytest.raises(MirasolError, match=r"contract\.json is damaged"):
        Engine(bundle)


# A stream that does what it should not.


@pytest.mark.parametrize("what", ["too many frames", "too large", "too long", "nothing of it"])
def test_an_oversized_chunk_is_refused_and_the_stream_goes_on(what: str, engine: Engine) -> None:
    frames, samples = random_chunk(0)
    wrong = {
        "too many frames": (np.concatenate([frames, frames]), samples),
        "too large": (np.zeros((CLIP.frames_per_chunk, 4320, 2880), np.uint8), samples),
        "too long": (frames, np.zeros(10_000_000, np.float32)),
        "nothing of it": (frames[:0], samples[:0]),
    }[what]
    session, other = Session(engine), Session(engine)
    with pytest.raises(ValueError, match="expected"):
        session.push(*wrong)
    assert np.array_equal(session.push(*random_chunk(1)).h, other.push(*random_chunk(1)).h)


def test_chunks_that_do_not_come_keep_their_place_in_time(engine: Engine) -> None:
    session = Session(engine)
    for present in (True, False, False, True):
        session.push(*(random_chunk(1) if present else (None, None)))
    combined = engine.contract.model.combined
    assert session.chunks == 4
    assert session.memory[1][0, -4 * combined :: combined].tolist() == [True, False, False, True]


def test_a_stream_that_stays_away_longer_than_the_memory_has_nothing_to_say_and_returns(engine: Engine) -> None:
    session = Session(engine)
    session.push(*random_chunk(0))
    for _ in range(engine.contract.model.max_chunks):
        session.push(None, None)
    with pytest.raises(MirasolError, match="nothing to ask about"):
        session.ask(QUESTION)
    session.push(*random_chunk(1))
    assert isinstance(session.ask(QUESTION).text, str)


def test_a_session_restored_into_another_bundle_is_refused_and_stays(engine: Engine) -> None:
    snapshot = streamed(Engine(tiny_bundle("ttm"), threads=1), [Chunk(0, 0.5, *random_chunk(0))]).snapshot()
    session = Session(engine)
    session.push(*random_chunk(3))
    before = session.snapshot()
    with pytest.raises(MirasolError, match="not taken over the bundle"):
        session.restore(snapshot)
    assert all(np.array_equal(array, before[name]) for name, array in session.snapshot().items())


@pytest.mark.parametrize("name", ["memory", "latent_step/keys_values", "features/past", "chunks"])
def test_a_snapshot_with_an_array_of_another_shape_is_refused(name: str, engine: Engine) -> None:
    session = Session(engine)
    snapshot = session.snapshot()
    assert name in snapshot
    with pytest.raises(MirasolError, match=f"snapshot's {name} is missing or has another shape"):
        session.restore({**snapshot, name: np.zeros((2, 2), np.float32)})


# A file that does what it should not.


def test_sound_that_is_not_finite_is_silence(tmp_path: Path, engine: Engine) -> None:
    path, samples = tmp_path / "nan.wav", tone(2.0)
    samples[2000:2100], samples[9000] = np.nan, np.inf
    with av.open(str(path), "w") as container:
        audio = container.add_stream("pcm_f32le", rate=8000, layout="mono")
        block = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        block.sample_rate, block.time_base = 8000, Fraction(1, 8000)
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    chunks = list(FileSource(path, CLIP))
    found = np.concatenate([chunk.samples for chunk in chunks if chunk.samples is not None])
    assert not found[2000:2100].any()
    assert np.abs(found[2100:9000] - samples[2100:9000]).max() <= 1 / 32768
    assert isinstance(load(tiny_bundle(), threads=1).answer(path, QUESTION).text, str)


def test_a_stream_that_stops_and_returns_holds_its_picture_and_is_silent(tmp_path: Path, engine: Engine) -> None:
    times = (*(i / 8 for i in range(8)), *(4 + i / 8 for i in range(8)))  # three seconds of nothing
    path = write_media(tmp_path / "gap.mkv", frames=16, times=times, size=(16, 16))
    chunks = list(FileSource(path, CLIP))
    assert [chunk.video is not None for chunk in chunks] == [True] * 10
    frames = np.concatenate([chunk.video for chunk in chunks if chunk.video is not None])
    assert shown(frames) == [*range(8), *[7] * 24, *range(8, 16)]
    assert streamed(engine, chunks).chunks == 10


def test_a_change_of_the_frame_rate_changes_nothing_of_the_time(tmp_path: Path) -> None:
    slow = [i / 8 for i in range(8)]
    fast = [1 + i / 32 for i in range(32)]  # from one second on, four times as many
    path = write_media(tmp_path / "rates.mkv", frames=40, times=(*slow, *fast), size=(16, 16))
    frames = np.concatenate([chunk.video for chunk in FileSource(path, CLIP) if chunk.video is not None])
    assert shown(frames) == [*range(8), *((8 + 4 * i) % 16 for i in range(8))]


def test_a_change_of_the_picture_size_within_a_stream(tmp_path: Path) -> None:
    first = write_media(tmp_path / "1.ts", frames=8, size=(16, 16))
    second = write_media(tmp_path / "2.ts", frames=8, size=(64, 32))
    chunks = list(FolderSource(tmp_path, CLIP))
    assert [chunk.index for chunk in chunks] == list(range(4))
    assert all(chunk.video is not None and chunk.video.shape[1:] == (24, 16) for chunk in chunks), (first, second)


def recorded(path: Path, *times: float, pictures: bool = True, sound: bool = True) -> Path:
    """A recorder's file: seconds that begin at ``times``, in the order in which they were written."""
    part, shifted = path.with_suffix(".part.ts"), path.with_suffix(".shifted.ts")
    write_media(part, frames=8, size=(16, 16), sound=tone(1.0, rate=16000), rate=16000, codec="mp2")
    with path.open("wb") as file:
        for time in times:
            with av.open(str(part)) as source, av.open(str(shifted), "w") as target:
                used = [*(source.streams.video if pictures else ()), *(source.streams.audio if sound else ())]
                streams = {stream.index: target.add_stream_from_template(stream) for stream in used}
                for packet in source.demux(used):
                    if packet.dts is not None:
                        later = round(time / packet.time_base)
                        packet.dts, packet.pts = packet.dts + later, packet.pts + later
                        packet.stream = streams[packet.stream.index]
                        target.mux(packet)
            file.write(shifted.read_bytes())
    return path


@pytest.mark.parametrize("kept", [{}, {"sound": False}, {"pictures": False}])
@pytest.mark.parametrize(
    ("times", "says"),
    [
        ((0, 1, 7200, 7201), "jump by 719[78] s at 2.0 s"),
        ((100, 101, 70, 71), r"go back by 3[012] s at 2.\d s"),
    ],
)
def test_time_stamps_that_jump_are_an_error_after_what_was_good(
    times: tuple[float, ...], says: str, kept: dict[str, bool], tmp_path: Path
) -> None:
    chunks = iter(FileSource(recorded(tmp_path / "jump.ts", *times, **kept), CLIP))
    seen = [next(chunks) for _ in range(3)]
    with pytest.raises(MediaError, match=rf"jump\.ts: the time stamps of the (pictures|sound) {says}, at most"):
        seen += (chunk for chunk, _ in zip(chunks, range(4), strict=False))
    assert len(seen) <= 5


def test_pictures_go_on_through_hours_without_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "LONGEST_GAP", 1.0)
    path = write_media(tmp_path / "late.mkv", frames=24, size=(16, 16), sound=tone(1.0), sound_from=2.0)
    assert sum(chunk.video is not None for chunk in FileSource(path, CLIP)) == 6


def test_sound_that_is_told_again_and_again_does_not_wait_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resample, "MOST_WAITING", 2.0)
    path = recorded(tmp_path / "again.ts", *(0, 1) * 4, pictures=False)
    with pytest.raises(MediaError, match=r"again\.ts: the time stamps of the sound go back again and again at 2\.0 s"):
        list(FileSource(path, CLIP))


def test_a_file_that_ends_within_a_frame_gives_what_it_holds(tmp_path: Path, engine: Engine) -> None:
    path = write_media(tmp_path / "cut.mkv", frames=32, sound=tone(4.0), size=(16, 16))
    os.truncate(path, path.stat().st_size * 3 // 4)
    chunks = list(FileSource(path, CLIP))
    assert 1 <= len(chunks) < 8
    assert streamed(engine, chunks).ask(QUESTION) is not None


# Somebody who ends it.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stream_that_is_stopped_says_what_it_was_and_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    command = ["stream", "synthetic", "--ask", QUESTION, "--every", "500ms", "--bundle", str(tiny_bundle())]
    process = subprocess.Popen(
        [sys.executable, "-c", "from mirasol.cli.main import main; main()", *command],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "answer" in process.stdout.readline()
    process.send_signal(number)
    out, wrong = process.communicate(timeout=LIMIT)
    assert (process.returncode, wrong) == (0, "")
    assert "x real time" in out
    assert not list(tmp_path.glob("mirasol-*"))
