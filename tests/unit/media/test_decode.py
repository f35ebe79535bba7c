"""Decoding: the frame that is shown at a time, the sound that is heard at it, and files that are no media."""

from __future__ import annotations

import dataclasses
import re
import shutil
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from wave import open as wave_file

import av
import numpy as np
import pytest
from support.media import SHARED, TINY_CLIP, grey, shown, tone, write_media

from mirasol.media import container as media
from mirasol.media import resample as collect
from mirasol.media.clip import ClipSpec
from mirasol.media.decode import MediaError, decode_clip, decode_clips, probe

SPREAD = dataclasses.replace(TINY_CLIP, sampling="spread")


def test_frames_come_at_the_wanted_rate(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=16, fps=24)
    clip = decode_clip(path, None, None, TINY_CLIP)
    assert shown(clip.video) == [0, 3, 6, 9]
    assert clip.frame_times == (0.0, 0.125, 0.25, 0.375)


def test_time_is_presentation_time_and_not_frame_number_over_rate(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=5, fps=25, times=[0, 0.02, 0.2, 0.22, 0.6])
    assert shown(decode_clip(path, None, None, TINY_CLIP).video) == [0, 1, 3, 3]


def test_start_and_end_choose_a_stretch(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=15, fps=8, gop=15)
    assert shown(decode_clip(path, 0.75, None, TINY_CLIP).video) == [6, 7, 8, 9]
    cut = decode_clip(path, 0.75, 1.0, TINY_CLIP)
    assert (cut.chunks, shown(cut.video)) == (1, [6, 7])


def test_seeking_gives_what_reading_from_the_beginning_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.mp4", frames=30, fps=8, gop=6, sound=tone(4, hertz=300))
    sought = decode_clip(path, 2.5, None, TINY_CLIP)
    monkeypatch.setattr("mirasol.media.decode.SEEK_BEFORE", 10.0)  # no clip starts late enough for a seek
    read = decode_clip(path, 2.5, None, TINY_CLIP)
    np.testing.assert_array_equal(sought.video, read.video)
    np.testing.assert_array_equal(sought.waveform, read.waveform)


@pytest.mark.parametrize("spec", [TINY_CLIP, SPREAD], ids=["rate", "spread"])
def test_clips_decoded_together_are_the_clips_decoded_alone(tmp_path: Path, spec: ClipSpec) -> None:
    path = write_media(tmp_path / "a.mkv", frames=240, fps=8, gop=16, sound=tone(30, 22050, 300), rate=22050)
    spans = [(20.0, 20.6), (None, 1.0), (0.3, 2.0), (2.5, 3.0), (40.0, 41.0), (19.7, 21.0)]
    together = decode_clips(path, spans, spec)
    assert "the media have ended" in str(together[4]) or "nothing of the clip" in str(together[4])
    for (start, end), clip in zip(spans, together, strict=True):
        if not isinstance(clip, MediaError):
            alone = decode_clip(path, start, end, spec)
            np.testing.assert_array_equal(clip.video, alone.video)
            np.testing.assert_array_equal(clip.waveform, alone.waveform)
            assert clip.frame_times == alone.frame_times


def test_clips_of_one_file_cost_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.mp4", frames=80, fps=8, gop=80)
    passes = []
    plain = media.open_media
    monkeypatch.setattr("mirasol.media.decode.open_media", lambda p: passes.append(p) or plain(p))
    clips = decode_clips(path, [(float(i), i + 1.0) for i in range(10)], TINY_CLIP)
    assert [shown(c.video)[0] for c in clips] == [8 * i % 16 for i in range(10)]
    assert len(passes) == 1


def test_spread_takes_frames_over_the_whole_clip(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=12, fps=4, sound=tone(3))
    clip = decode_clip(path, None, None, SPREAD)
    assert shown(clip.video) == [0, 3, 6, 9]
    assert (clip.chunk_seconds, len(clip.waveform)) == (1.5, 24000)


def test_the_centre_square_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        planes = np.full((48, 64), 128, np.uint8)
        planes[:32] = 235
        planes[:32, 16:48] = 100  # the square
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    luma = decode_clip(path, None, None, TINY_CLIP).video[0, :16]
    assert np.abs(luma[:, 2:-2].astype(int) - 100).max() <= 1  # scaling blends the outermost columns


def test_ten_bits_and_full_range_become_eight_bits_of_limited_range(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=4, pixels="yuv420p10le")
    assert shown(decode_clip(path, None, None, TINY_CLIP).video) == [0, 1, 2, 3]


@pytest.mark.parametrize("pixels", ["gray", "gray10le", "yuv410p", "yuv422p10le", "yuv444p", "yuva420p", "bgr0"])
def test_any_pixel_format_gives_the_same_brightness(tmp_path: Path, pixels: str) -> None:
    path = tmp_path / "a.nut"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, pixels
        for index in range(4):
            planes = np.full((48, 32), 128, np.uint8)
            planes[:32] = grey(index)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p").reformat(format=pixels)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert shown(decode_clip(path, None, None, TINY_CLIP).video) == [0, 1, 2, 3]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_picture_is_turned_as_its_container_says(tmp_path: Path, turns: int) -> None:
    path = tmp_path / "a.mp4"
    planes = np.full((48, 32), 128, np.uint8)
    planes[:32] = 60
    planes[:16] = 200  # bright above, dark below
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"qp": "10"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # of the matrix: each number times 65536
    a, b, c, d = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))[turns]  # clockwise
    data[at : at + 20] = struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16)
    path.write_bytes(data)
    luma = decode_clip(path, None, None, TINY_CLIP).video[0, :16].astype(int)
    bright = np.rot90(luma, turns)  # back again, counter-clockwise
    assert bright[:6].mean() > 190 and bright[-6:].mean() < 70


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "nut"])
def test_a_picture_that_begins_late_keeps_its_offset_to_the_sound(tmp_path: Path, suffix: str) -> None:
    codec = "flac" if suffix in ("mp4", "mkv") else "pcm_s16le"
    times = [0.125, 0.25, 0.375, 0.5]
    path = write_media(tmp_path / f"a.{suffix}", frames=4, times=times, sound=tone(0.625), codec=codec)
    clip = decode_clip(path, None, None, TINY_CLIP)
    assert shown(clip.video) == [0, 0, 1, 2]  # before the first there is only the first
    assert clip.frame_times == pytest.approx((0.125, 0.125, 0.25, 0.375))
    np.testing.assert_allclose(clip.waveform, tone(0.5), atol=1e-4)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_sound_that_begins_late_by_an_edit_list_keeps_its_offset(tmp_path: Path, suffix: str) -> None:
    codec = "flac" if suffix == "mp4" else "pcm_s16le"
    path = write_media(tmp_path / f"a.{suffix}", frames=8, sound=tone(0.5), sound_from=0.25, codec=codec)
    wave = decode_clip(path, None, None, TINY_CLIP).waveform
    assert np.abs(wave[:1990]).max() == 0
    np.testing.assert_allclose(wave[2000:], tone(0.25), atol=1e-4)


def test_what_an_edit_list_cuts_away_is_not_shown(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=12, gop=12)
    cut = tmp_path / "cut.mp4"
    with av.open(str(path)) as source, av.open(str(cut), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                packet.pts = packet.dts = packet.pts - 3 * packet.duration  # times before 0 are edited out
                target.mux(packet)
    assert b"elst" in cut.read_bytes()
    clip = decode_clip(cut, None, None, TINY_CLIP)
    assert shown(clip.video) == [3, 4, 5, 6]
    assert clip.frame_times[0] == 0


def test_the_run_up_of_an_audio_codec_is_not_heard(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    wanted = tone(0.5, 16000, 300)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(wanted[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    wave = decode_clip(path, None, None, dataclasses.replace(TINY_CLIP, sample_rate=16000)).waveform
    late = [float(np.dot(np.roll(wanted, shift)[2000:6000], wave[2000:6000])) for shift in range(-20, 21)]
    assert abs(int(np.argmax(late)) - 20) <= 1  # in samples; an AAC frame is 1024


def test_a_duration_that_is_not_stated_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with (
        av.open(str(write_media(tmp_path / "whole.mkv", frames=12, fps=4, sound=tone(3)))) as source,
        av.open(str(path), "w", options={"live": "1"}) as target,
    ):
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    assert probe(path).duration is None
    clip = decode_clip(path, None, None, SPREAD)
    assert shown(clip.video) == [0, 3, 6, 9]
    assert clip.chunk_seconds == pytest.approx(1.5, abs=0.01)


def test_sound_keeps_its_offset_to_the_picture(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", frames=8, sound=tone(0.5), sound_from=0.25)
    wave = decode_clip(path, None, None, TINY_CLIP).waveform
    assert np.abs(wave[:1990]).max() == 0
    np.testing.assert_allclose(wave[2000:], tone(0.25), atol=1e-4)


def test_both_channels_are_heard(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.wav", sound=np.stack([tone(0.5), 0 * tone(0.5)]), codec="pcm_s16le")
    np.testing.assert_allclose(decode_clip(path, None, None, TINY_CLIP).waveform, tone(0.5) / 2, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 8])
def test_any_number_of_channels_becomes_one_of_the_same_level(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "a.wav"
    with wave_file(str(path), "wb") as file:
        file.setparams((channels, 2, 8000, 0, "NONE", ""))
        samples = np.repeat(np.rint(tone(0.5)[:, None] * 32767), channels, axis=1)
        file.writeframes(samples.astype("<i2").tobytes())
    np.testing.assert_allclose(decode_clip(path, None, None, TINY_CLIP).waveform, tone(0.5), atol=1e-3)


@pytest.mark.parametrize("rate", [1, 2_000_000_000])
def test_impossible_sample_rates_are_refused_before_resampling(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    with wave_file(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(100_000))
    with pytest.raises(MediaError, match=f"{rate} samples of sound per second, the limits are 100 and 1048576"):
        decode_clip(path, None, None, TINY_CLIP)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_resampling_keeps_time_and_level(tmp_path: Path, rate: int) -> None:
    path = write_media(tmp_path / "a.wav", sound=tone(1.0, rate), rate=rate, codec="pcm_s16le")
    wave = decode_clip(path, None, None, dataclasses.replace(TINY_CLIP, chunks=4)).waveform
    np.testing.assert_allclose(wave[200:7800], tone(1.0)[200:7800], atol=2e-3)


def test_resampling_is_torchaudios(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from tests.support.torchaudio_reference import functional

    sound = tone(1.0, 48000, 300) * np.hanning(48000).astype(np.float32) + tone(1.0, 48000, 1500, 0.2)
    path = write_media(tmp_path / "a.wav", sound=sound, rate=48000, codec="pcm_s16le")
    wave = decode_clip(path, None, None, dataclasses.replace(TINY_CLIP, chunks=4)).waveform
    reference = functional.resample(torch.from_numpy(sound), 48000, 8000, lowpass_filter_width=64).numpy()
    np.testing.assert_allclose(wave[200:7800], reference[200:7800], atol=2e-3)


def test_without_a_track_there_is_no_sound(tmp_path: Path) -> None:
    clip = decode_clip(write_media(tmp_path / "a.mp4", frames=4), None, None, TINY_CLIP)
    assert (clip.waveform, clip.audio_chunks, clip.video_chunks) == (None, 0, 2)


def test_sound_alone_is_a_clip(tmp_path: Path) -> None:
    clip = decode_clip(write_media(tmp_path / "a.flac", sound=tone(0.5)), None, None, TINY_CLIP)
    assert (clip.video, clip.audio_chunks, clip.video_chunks) == (None, 2, 0)


def test_a_short_file_has_fewer_chunks(tmp_path: Path) -> None:
    clip = decode_clip(write_media(tmp_path / "a.mp4", frames=2, sound=tone(0.25)), None, None, TINY_CLIP)
    assert (clip.chunks, len(clip.video), len(clip.waveform)) == (1, 2, 2000)


def test_a_chunk_counts_from_its_half_on(tmp_path: Path) -> None:
    for seconds, chunks in ((0.36, 1), (0.40, 2)):  # chunks of 0.25 s
        path = write_media(tmp_path / f"{seconds}.wav", sound=tone(seconds), codec="pcm_s16le")
        assert decode_clip(path, None, None, TINY_CLIP).chunks == chunks


def test_sound_that_ends_early_leaves_its_chunks_without_sound(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=4, sound=tone(0.26))
    clip = decode_clip(path, None, None, TINY_CLIP)
    assert (clip.video_chunks, clip.audio_chunks) == (2, 1)


def test_shorter_than_a_chunk_is_refused(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=1, sound=tone(0.1))
    with pytest.raises(MediaError, match=r"shorter than one chunk of 0\.25 s"):
        decode_clip(path, None, None, TINY_CLIP)


def test_a_clip_past_the_end_is_refused(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=8)
    for spec in (TINY_CLIP, SPREAD):
        with pytest.raises(MediaError, match=r"a\.mp4: "):
            decode_clip(path, 5.0, 6.0, spec)


def test_what_a_truncated_file_still_holds_is_used(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", frames=80, gop=2, sound=tone(10))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert shown(decode_clip(path, None, None, TINY_CLIP).video) == [0, 1, 2, 3]


def test_a_clip_that_is_cut_short_by_damage_says_up_to_where(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", frames=80, gop=2, sound=tone(10))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = decode_clip(path, None, None, SPREAD)
    usable = re.fullmatch(
        r"the media end at (\S+) s, the file says 10 s: picture up to (\S+) s, sound up to (\S+) s", clip.partial
    )
    assert usable and 4 < float(usable[1]) < 6
    assert decode_clip(path, None, None, TINY_CLIP).partial == ""  # its first half second is whole


def test_a_whole_file_is_not_partial_though_its_end_is_not_read(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=80, gop=2)
    assert decode_clip(path, None, None, SPREAD).partial == ""


def test_damage_concerns_the_clip_that_it_lies_in_and_no_other(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", frames=48, fps=8, gop=2, size=(64, 64))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = next(p for p in container.demux(video=0) if p.pts is not None and p.pts * p.time_base >= 4)
        at = data.rindex(bytes(packet))
    data[at + 4 : at + 9] = b"\xff" * 5
    path.write_bytes(data)
    spans = [(0.0, 0.5), (4.0, 4.5), (5.0, 5.5)]
    together = [clip.partial for clip in decode_clips(path, spans, TINY_CLIP)]
    assert together == [decode_clip(path, *span, TINY_CLIP).partial for span in spans]
    assert [bool(partial) for partial in together] == [False, True, False]


def test_a_stream_that_nothing_decodes_is_told(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", frames=4, sound=tone(0.5))
    path.write_bytes(path.read_bytes().replace(b"fLaC", b"zzzz"))
    clip = decode_clip(path, None, None, TINY_CLIP)
    assert (clip.audio_chunks, clip.video_chunks) == (0, 2)
    assert clip.partial == "audio: no decoder for its codec: picture up to 0.5 s, sound up to 0 s"


@pytest.mark.parametrize(
    "content", [b"", b"hello, I am no video\n" * 100, bytes(5000), b"\x00\x00\x00\x18ftypmp42" * 9]
)
def test_a_file_that_is_no_media_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.mp4"):
        decode_clip(tmp_path / "a.mp4", None, None, TINY_CLIP)


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        probe(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="no regular file"):
        probe(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "ffconcat version 1.0\nfile '{path}'\n"),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"),
    ],
)
def test_a_playlist_is_refused(tmp_path: Path, name: str, content: str) -> None:
    secret = write_media(tmp_path / "secret.mp4", frames=8)
    (tmp_path / name).write_text(content.format(path=secret))
    with pytest.raises(MediaError, match="cannot be opened"):
        decode_clip(tmp_path / name, None, None, TINY_CLIP)


def test_a_name_is_a_name_and_no_address(tmp_path: Path) -> None:
    for name in ("concat:a|b.mp4", "weird  name\n🎻 %03d.mp4", "-i.mp4"):
        shutil.copy(write_media(tmp_path / "plain.mp4", frames=4), tmp_path / name)
        assert decode_clip(tmp_path / name, None, None, TINY_CLIP).chunks == 2


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.mp4", frames=4)
    monkeypatch.setattr(media, "MAX_PIXELS", 1000)
    with pytest.raises(MediaError, match="32x32 pixels a frame, the limit is 1000"):
        decode_clip(path, None, None, TINY_CLIP)


def test_a_clip_of_hours_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.mp4", frames=8)
    monkeypatch.setattr("mirasol.media.decode.MAX_SECONDS", 0.5)
    with pytest.raises(MediaError, match=r"lasts 1 s, the limit is 0\.5 s"):
        decode_clip(path, None, None, SPREAD)


def test_endless_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.mp4", frames=60, fps=Fraction(60))
    monkeypatch.setattr(collect, "MAX_FRAMES", 10)
    with pytest.raises(MediaError, match="more than 10 frames"):
        decode_clip(path, None, None, TINY_CLIP)


def test_a_probe_says_what_the_file_says(tmp_path: Path) -> None:
    info = probe(write_media(tmp_path / "a.mp4", frames=8, size=(64, 32), sound=tone(1)))
    assert (info.duration, info.width, info.height, info.fps) == (1.0, 64, 32, 8.0)
    assert (info.video_codec, info.audio_codec, info.sample_rate, info.channels) == ("h264", "flac", 8000, 1)


def test_decoding_does_not_need_torch() -> None:
    code = "import sys, mirasol.media.decode; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not (SHARED / "odd").is_dir(), reason=f"no real files in {SHARED}: set MIRASOL_SHARED")
def test_every_odd_file_has_one_and_the_same_fate_twice() -> None:
    def fate(path: Path) -> str:
        try:
            clip = decode_clip(path, None, None, TINY_CLIP)
        except MediaError as error:
            return str(error)
        return f"{clip.chunks} {clip.video_chunks} {clip.audio_chunks} {clip.partial}"

    paths = sorted(p for p in (SHARED / "odd").rglob("*") if p.is_file())
    fates = [fate(path) for path in paths]
    assert len(fates) >= 61
    assert fates == [fate(path) for path in paths]
    assert sum(f[0].isdigit() for f in fates) >= 25  # used at least in part


@pytest.mark.skipif(not (SHARED / "odd").is_dir(), reason=f"no real files in {SHARED}: set MIRASOL_SHARED")
def test_rotated_phones_are_turned_upright() -> None:
    path = SHARED / "odd/mozilla+mp4parse-rust/mp4parse_capi/tests/video_rotation_90.mp4"
    spec = dataclasses.replace(SPREAD, chunks=1, frames_per_chunk=1, size=48)
    upright = decode_clip(path, None, None, spec).video[0, :48].astype(int)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation % 360
        raw = frame.reformat(80, 48, "gray").to_ndarray()[:, 16:64].astype(int)
    assert np.abs(np.rot90(raw, frame.rotation // 90) - upright).mean() < np.abs(raw - upright).mean()


def test_the_brightness_code_of_these_tests_is_readable() -> None:
    assert [round((grey(i) - 20) / 12) for i in range(16)] == list(range(16))
