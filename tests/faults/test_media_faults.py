"""Untrusted files: each gets one status, even if it crashes the decoder, and the run continues."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from support import sandboxed as stubs
from support.media import SHARED, TINY_CLIP, example, shown, tone, write_media
from support.scratch import LIMIT

from mirasol.core.errors import MirasolError
from mirasol.data.manifest import clips_of, read_manifest, write_manifest
from mirasol.data.shards.build import build_shards
from mirasol.data.shards.config import ShardsSpec
from mirasol.media import sandbox
from mirasol.media.clip import ClipSpec
from mirasol.media.container import MediaError
from mirasol.media.decode import decode_clip
from mirasol.media.probe import probe_file, probe_unguarded
from mirasol.media.sandbox import Sandbox, sandboxed

SPREAD = ClipSpec("spread", chunks=2, frames_per_chunk=2, size=16, sample_rate=8000, mels=8, audio_bands=4)
ENOUGH = 600 << 20  # bytes of memory: an interpreter with its libraries and a few frames of 720p
# Of /shared/data/odd: encrypted, headers without content, empty, or with tables that point nowhere.
UNUSABLE = {
    "AudioVideoInterleave.avi",
    "FlashVideo.flv",
    "bipbop-cenc-audioinit.mp4",
    "bipbop_480wp_1001kbps-cenc-video-key1-init.mp4",
    "bipbop_audioinit.mp4",
    "bipbop_cbcs_audio_init.mp4",
    "bipbop_cbcs_video_init.mp4",
    "bipbop_nonfragment_header.mp4",
    "chunk_out_of_range.mp4",
    "mp3.mp3",
    "short-cenc.mp4",
    "wav.wav",
    "zero_empty_stsc.mp4",
}


@pytest.fixture
def process() -> Iterator[Sandbox]:
    """A sandboxed process of the test's own."""
    process = Sandbox()
    yield process
    process.close()


def peak(process: Sandbox) -> int:
    """Bytes of memory that it ever had at once."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


@pytest.mark.skipif(not (SHARED / "odd").is_dir(), reason=f"no real files in {SHARED}: set MIRASOL_SHARED")
def test_every_odd_file_has_one_status(process: Sandbox) -> None:
    paths = sorted(p for p in (SHARED / "odd").rglob("*") if p.is_file() and p.name != "manifest.tsv")
    found = {
        path: process.call(probe_unguarded, (path,), {}) for path in paths
    }  # the same process: none of them ended it
    assert len(found) >= 61
    assert {p.name for p, status in found.items() if status.kind == "rejected"} == UNUSABLE
    assert all((status.reason == "") == (status.kind == "ok") for status in found.values())
    assert peak(process) < ENOUGH


@pytest.mark.skipif(not (SHARED / "odd").is_dir(), reason=f"no real files in {SHARED}: set MIRASOL_SHARED")
def test_every_odd_file_has_the_same_status_twice(process: Sandbox) -> None:
    paths = sorted(p for p in (SHARED / "odd").rglob("*") if p.is_file())
    once = [process.call(probe_unguarded, (path, 0.5), {}) for path in paths]
    assert once == [probe_file(path, 0.5) for path in paths]


def test_a_decoder_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    sandboxed(stubs.pid)
    monkeypatch.setattr(sandbox, "STALL_SECONDS", 0.3)
    with pytest.raises(MediaError, match=r"the decoder hung: nothing was read or decoded for 0\.3 s"):
        sandboxed(stubs.hang)
    monkeypatch.undo()
    assert sandboxed(os.path.basename, "a/b") == "b"  # and the next file has a new process


def test_a_decoder_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    sandboxed(stubs.pid)
    monkeypatch.setattr(sandbox, "FILE_SECONDS", 0.5)
    with pytest.raises(MediaError, match=r"more than 0\.5 s"):
        sandboxed(stubs.be_slow, True)


def test_a_slow_decoder_that_makes_progress_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sandboxed(stubs.pid)
    monkeypatch.setattr(sandbox, "STALL_SECONDS", 1.0)
    assert sandboxed(stubs.be_slow, True) == "done"
    with pytest.raises(MediaError, match="hung"):
        sandboxed(stubs.be_slow, False)


@pytest.mark.parametrize(("stub", "said"), [(stubs.crash, r"crashed \(SIGSEGV\)"), (stubs.leave, "exit status 3")])
def test_a_decoder_that_crashes_is_a_rejected_file(stub: Callable[[], None], said: str) -> None:
    with pytest.raises(MediaError, match=said):
        sandboxed(stub)
    assert sandboxed(os.path.basename, "a/b") == "b"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits the address space")
def test_a_decoder_that_wants_all_memory_does_not_get_it() -> None:
    before = sandboxed(stubs.pid)
    with pytest.raises(MediaError, match="needs more memory than the 4096 MiB"):
        sandboxed(stubs.eat)
    assert sandboxed(stubs.pid) == before


def test_a_process_that_the_system_killed_gets_a_second_try(tmp_path: Path) -> None:
    assert sandboxed(stubs.be_killed_once, tmp_path / "marker") == "done"


def test_a_process_that_the_system_kills_twice_is_an_error_that_names_the_clip() -> None:
    clips = clips_of([example(7)])
    with pytest.raises(MirasolError, match=rf"SIGKILL.*on /data, media/7\.mp4 \[{clips[0].key}\]") as told:
        sandboxed(stubs.be_killed, Path("/data"), clips)
    assert not isinstance(told.value, MediaError)  # it is not the file's fault


def test_mistakes_of_the_program_are_no_fault_of_the_file() -> None:
    with pytest.raises(KeyError, match="a mistake in the program") as told:
        sandboxed(stubs.fail)
    assert "sandboxed.py" in told.value.__notes__[0]
    with pytest.raises(RuntimeError, match="pickle"):
        sandboxed(stubs.unsendable)


def test_a_hanging_decoder_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import threading, time\nfrom support import sandboxed as s\nfrom mirasol.media.sandbox import sandboxed\n"
        "def work(): print(sandboxed(s.pid), flush=True); sandboxed(s.hang)\n"
        "threading.Thread(target=work).start()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    assert psutil.wait_procs([child], timeout=LIMIT)[1] == []


BUILD = """
import sys
from mirasol.data.shards import encode as parts
from mirasol.data.shards import build as shards
from mirasol.media import sandbox
from mirasol.media.clip import ClipSpec
from mirasol.data.shards.config import ShardsSpec
from mirasol.core.errors import MirasolError
from support import sandboxed

sandbox.STALL_SECONDS = 2.0
parts.encode_slice = sandboxed.encode_slice
if __name__ == "__main__":
    clip = ClipSpec(fps=8.0, chunks=2, frames_per_chunk=2, size=16, sample_rate=8000, mels=8, audio_bands=4)
    try:
        report = shards.build_shards(sys.argv[1], sys.argv[2], clip, ShardsSpec(workers=1, max_rejected=0.9))
    except MirasolError as error:
        sys.exit(f"refused: {error}")
    print("\\n".join(report["rejected_list"]))
"""


def build(tmp_path: Path, *bad: str) -> subprocess.CompletedProcess[str]:
    """Shards of four good files and ``bad`` ones, by a decoder that does what their names say."""
    names = ["good0", *bad, "good1", "good2", "good3"]
    good = write_media(tmp_path / "good.mp4", frames=4, size=(16, 16))
    rows = [example(0, id=name, media=f"media/{name}.mp4", split="train") for name in names]
    rows.append(example(2, media="media/good0.mp4", split="val"))
    for name in names:
        (tmp_path / "data/media").mkdir(parents=True, exist_ok=True)
        shutil.copy(good, tmp_path / f"data/media/{name}.mp4")
    write_manifest(tmp_path / "data/manifest.jsonl", rows)
    (tmp_path / "build.py").write_text(BUILD)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, str(tmp_path / "build.py"), str(tmp_path / "data"), str(tmp_path / "shards")]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=LIMIT)


def test_bad_files_are_rejected_and_the_run_goes_on(tmp_path: Path) -> None:
    run = build(tmp_path, "hang", "crash", "eat")
    reasons = {line.split()[0]: line.partition("]: ")[2] for line in run.stdout.splitlines()}
    assert list(reasons) == ["media/hang.mp4", "media/crash.mp4", "media/eat.mp4"], run.stderr
    assert "hung" in reasons["media/hang.mp4"] and "SIGSEGV" in reasons["media/crash.mp4"]
    assert "memory" in reasons["media/eat.mp4"]
    # What is left is what a run without them gives.
    rows = [r for r in read_manifest(tmp_path / "data/manifest.jsonl") if "good" in r.media]
    write_manifest(tmp_path / "data/manifest.jsonl", rows)
    build_shards(tmp_path / "data", tmp_path / "without", TINY_CLIP, ShardsSpec(workers=1))
    for name in ("train-00000.tar", "val-00000.tar"):
        assert (tmp_path / "shards" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_a_process_killed_in_a_run_is_an_error_that_names_the_clip(tmp_path: Path) -> None:
    run = build(tmp_path, "killed")
    assert run.returncode == 1
    assert "media/killed.mp4" in run.stderr and "refused: the process that decodes was killed twice" in run.stderr


def jpeg_video(path: Path, width: int, height: int, *, declared: bool) -> Path:
    """An AVI of one small JPEG picture that says it is ``width`` x ``height``, as the AVI does if ``declared``."""
    small = path.with_suffix(".small.avi")
    with av.open(str(small), "w") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p"
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuvj420p")))
        container.mux(stream.encode(None))
    data = bytearray(small.read_bytes())
    at = data.index(b"\xff\xc0") + 5  # of the height in the picture's frame header
    data[at : at + 4] = struct.pack(">HH", height, width)
    if declared:
        at = data.index(b"strf") + 12  # of the width in the AVI's BITMAPINFOHEADER
        data[at : at + 8] = struct.pack("<ii", width, height)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("declared", [True, False], ids=["in the container", "in the picture alone"])
def test_a_pixel_bomb_is_rejected_before_it_takes_memory(process: Sandbox, tmp_path: Path, declared: bool) -> None:
    path = jpeg_video(tmp_path / "bomb.avi", 20_000, 20_000, declared=declared)
    assert path.stat().st_size < 10_000
    status = process.call(probe_unguarded, (path,), {})
    assert status.kind == "rejected", status
    assert peak(process) < 200 << 20


def test_a_jpeg_video_of_usual_size_is_fine(tmp_path: Path) -> None:
    assert probe_file(jpeg_video(tmp_path / "a.avi", 32, 32, declared=True)).kind == "ok"


def ten_hours(path: Path) -> Path:
    """A Matroska file of half a second whose header says that it lasts ten hours."""
    data = bytearray(write_media(path, frames=4, sound=tone(0.5)).read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", 36_000_000.0)  # milliseconds
    path.write_bytes(data)
    return path


def test_a_header_of_ten_hours_takes_neither_time_nor_memory(process: Sandbox, tmp_path: Path) -> None:
    path = ten_hours(tmp_path / "a.mkv")
    status = process.call(probe_unguarded, (path,), {})
    assert (status.kind, status.seconds) == ("partial", 0.5)
    assert status.reason == "the media end at 0.5 s, the file says 3.6e+04 s: picture up to 0.5 s, sound up to 0.5 s"
    assert peak(process) < 200 << 20


def test_a_clip_of_ten_hours_is_refused_and_its_beginning_is_not(tmp_path: Path) -> None:
    path = ten_hours(tmp_path / "a.mkv")
    with pytest.raises(MediaError, match="lasts 36000 s, the limit is 3600 s"):
        decode_clip(path, None, None, SPREAD)
    assert shown(decode_clip(path, None, None, TINY_CLIP).video) == [0, 1, 2, 3]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Somebody who listens and would notice a visit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        yield listener


PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "a.mp4": '#EXTM3U\n#EXT-X-MAP:URI="{target}"\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n',
    "a.txt": "ffconcat version 1.0\nfile '{target}'\n",
    "a.mkv": "ffconcat version 1.0\nfile '{target}'\nduration 1\n",
    "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{target}\n"
    "m=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "a.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="0" mimeType="video/mp4"><BaseURL>{target}</BaseURL></Representation></AdaptationSet>'
    "</Period></MPD>",
    "a.asf": "[Reference]\nRef1={target}\nRef2={target}\n",
    "a.ism": '<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="{target}"/></SmoothStreamingMedia>',
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_playlist_is_refused_and_nothing_in_it_is_opened(tmp_path: Path, server: socket.socket, name: str) -> None:
    secret = write_media(tmp_path / "secret/secret.mp4", frames=8)
    for target in (str(secret), f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4"):
        path = tmp_path / name
        path.write_text(PLAYLISTS[name].format(target=target))
        status = probe_file(path)
        assert status.kind == "rejected" and "cannot be opened" in status.reason
    with pytest.raises(TimeoutError):
        server.accept()


def test_pipes_and_devices_are_refused_without_opening_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")  # opening it for reading would wait for ever
    for path in (tmp_path / "a.mp4", Path("/dev/zero")):
        status = probe_file(path)
        assert (status.kind, status.reason) == ("rejected", f"{path}: is not a regular file")


@pytest.mark.parametrize("name", ["two  words.mp4", "🎻.mp4", "new\nline.mp4", "é" * 125 + ".mp4a", "-y", "pipe:0"])
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    shutil.copy(write_media(tmp_path / "plain.mp4", frames=4), tmp_path / name)
    assert probe_file(tmp_path / name).kind == "ok"


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi"])
def test_a_truncated_file_is_partial_up_to_where_it_ends(tmp_path: Path, suffix: str) -> None:
    path = write_media(tmp_path / f"a.{suffix}", frames=160, gop=2, sound=tone(20), codec="pcm_s16le")
    if suffix == "mp4":  # its table of contents first, as on the web
        with av.open(str(path)) as source, av.open(str(path) + ".mp4", "w", options={"movflags": "faststart"}) as out:
            streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
        path = Path(str(path) + ".mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    status = probe_file(path)
    assert status.kind == "partial" and "picture up to" in status.reason
    assert 5 < status.seconds < 15


@pytest.mark.parametrize(
    ("name", "rate", "said"),
    [
        ("a.mp3", 16000, "the file says 20"),
        ("a.mp3", 44100, "the file says 20"),
        ("a.ts", 32000, "the file ends within a packet, 100 of its 188 bytes are there"),
        ("a.m2ts", 32000, "the file ends within a packet, 100 of its 192 bytes are there"),
    ],
)
def test_a_truncated_file_without_a_header_of_its_length_is_partial(
    tmp_path: Path, name: str, rate: int, said: str
) -> None:
    frames = 0 if name.endswith("mp3") else 160
    codec = "mp2" if frames else "libmp3lame"
    sound = tone(20, rate) + np.random.default_rng(0).normal(0, 0.05, 20 * rate)
    path = write_media(tmp_path / name, frames=frames, sound=sound, rate=rate, codec=codec)
    assert probe_file(path).kind == "ok"
    size = path.stat().st_size // 2
    packet = {".mp3": size, ".ts": 188, ".m2ts": 192}[path.suffix]
    os.truncate(path, size - size % packet + (100 if frames else 0))
    status = probe_file(path)
    assert status.kind == "partial" and said in status.reason
    assert 9 < status.seconds < 11


def test_flipped_bits_are_a_status_and_no_crash(process: Sandbox, tmp_path: Path) -> None:
    whole = write_media(tmp_path / "a.mp4", frames=40, sound=tone(5)).read_bytes()
    draw = np.random.default_rng(7)
    kinds = set()
    for number in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        where = draw.integers(0, len(data), 1 + number % 5)
        data[where] ^= (1 << draw.integers(0, 8, len(where))).astype(np.uint8)
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(data.tobytes())
        status = process.call(probe_unguarded, (path,), {})
        assert status == process.call(probe_unguarded, (path,), {})
        kinds.add(status.kind)
    assert len(kinds) >= 2


def test_a_relative_path_means_the_file_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandboxed(Path.cwd)  # the process is there now, and lives on
    monkeypatch.chdir(tmp_path)
    assert sandboxed(Path.cwd) == tmp_path
