"""The service in normal use: the runtime's answers, health and metrics."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.bundle import CLIP, ended_by, tiny_bundle
from support.media import tone, write_media
from support.service import QUESTION, Service, camera_chunk, events, running

from mirasol.runtime.engine import Engine
from mirasol.runtime.features import ChunkFeatures
from mirasol.runtime.model import load
from mirasol.runtime.session import Session
from mirasol.runtime.sources.files import FileSource


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3.5 s: seven chunks, of which five are remembered."""
    return write_media(tmp_path_factory.mktemp("media") / "clip.mkv", frames=28, size=(16, 16), sound=tone(3.5))


@pytest.fixture
def uploaded(service: Service, media: Path) -> Iterator[str]:
    """The path of a session with an upload."""
    session = service.session()
    status, found = service.call("PUT", f"{session}/media", media.read_bytes())
    assert (status, found["has_video"], found["has_audio"]) == (201, True, True)
    yield session
    service.call("DELETE", session)


def test_an_answer_about_an_upload_is_the_runtime_s(service: Service, uploaded: str, media: Path) -> None:
    status, found = service.call("POST", f"{uploaded}/answer", {"question": QUESTION})
    assert status == 200
    expected = load(tiny_bundle()).answer(media, QUESTION)
    facts = {"score": round(expected.score, 6), "flags": [flag.text for flag in expected.flags]}
    assert found == {"answer": str(expected), "complete": False, **facts, "chunks": 7, "seconds": 3.5, "release": None}


def test_whether_the_model_has_ended_an_answer_is_told(
    service: Service, uploaded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, told = service.manager.engine, []
    for contract in (engine.contract, ended_by(engine, "bell")):
        monkeypatch.setattr(engine, "contract", contract)
        path = service.session()
        with service.socket(path) as socket:
            socket.send(camera_chunk(0)[0])
            socket.send(json.dumps({"type": "ask", "question": QUESTION}))
            over_socket = events(socket, "answer")[-1]
        told.append((over_socket["answer"], over_socket["complete"]))
    assert told == [("bell bell bell bell", False), ("", True)]
    assert service.call("POST", f"{uploaded}/answer", {"question": QUESTION})[1]["complete"] is True


def test_a_played_upload_is_shown_as_the_model_sees_it(service: Service, uploaded: str, media: Path) -> None:
    with service.socket(uploaded) as socket:
        socket.send(json.dumps({"type": "play", "pace": "fast"}))
        chunks = [event for event in events(socket, "ended") if event["type"] == "chunk"]
    features = ChunkFeatures(CLIP)
    for shown, chunk in zip(chunks, FileSource(media, CLIP), strict=True):
        inputs = features.push(chunk.video, chunk.samples)
        assert base64.b64decode(shown["frames"]) == inputs.video.tobytes()
        mel = np.frombuffer(base64.b64decode(shown["mel"]), np.uint8) / (255 / 4) - 1
        assert np.abs(mel - inputs.audio[0].ravel().clip(-1, 3)).max() <= 4 / 255


def test_an_answer_over_the_socket_is_streamed_and_explained(service: Service, uploaded: str, media: Path) -> None:
    with service.socket(uploaded) as socket:
        socket.send(json.dumps({"type": "play", "pace": "fast"}))
        events(socket, "ended")
        socket.send(json.dumps({"type": "ask", "question": QUESTION, "influence": True}))
        found = events(socket, "influence")
    expected = str(load(tiny_bundle()).answer(media, QUESTION))
    assert expected
    assert "".join(event["text"] for event in found if event["type"] == "piece") == expected
    assert found[-2]["answer"] == "".join(found[-1]["tokens"]) == expected
    assert [chunk["index"] for chunk in found[-1]["chunks"]] == [2, 3, 4, 5, 6]
    assert all(len(chunk["loss"]) == len(found[-1]["tokens"]) for chunk in found[-1]["chunks"])


def test_a_camera_s_chunks_are_the_runtime_s(service: Service) -> None:
    session = Session(Engine(tiny_bundle(), threads=1))
    with service.socket(service.session()) as socket:
        for seed in range(3):
            message, video, samples = camera_chunk(seed)
            socket.send(message)
            session.push(video, samples)
        socket.send(json.dumps({"type": "ask", "question": QUESTION}))
        found = events(socket, "answer")
    assert [event["index"] for event in found if event["type"] == "chunk"] == [0, 1, 2]
    assert found[-1]["answer"] == str(session.ask(QUESTION))


def test_a_camera_may_bring_pictures_or_sound_alone(service: Service) -> None:
    message, video, _ = camera_chunk(0)
    with service.socket(service.session()) as socket:
        socket.send(b"MIR1\x01\0\0\0" + video.tobytes())
        socket.send(b"MIR1\x02\0\0\0" + message[8 + video.nbytes :])
        first, second = events(socket, "chunk"), events(socket, "chunk")
    assert (first[-1]["mel"], second[-1]["frames"]) == (None, None)


def test_a_camera_s_chunk_that_did_not_come_takes_its_place_in_time(service: Service) -> None:
    session = Session(Engine(tiny_bundle(), threads=1))
    with service.socket(service.session()) as socket:
        for seed in range(3):
            message, video, samples = camera_chunk(seed)
            socket.send(b"MIR1\0\0\0\0" if seed == 1 else message)
            session.push(*(None, None) if seed == 1 else (video, samples))
        socket.send(json.dumps({"type": "ask", "question": QUESTION}))
        found = events(socket, "answer")
    shown = [(e["index"], bool(e["frames"]), bool(e["mel"])) for e in found if e["type"] == "chunk"]
    assert shown == [(0, True, True), (1, False, False), (2, True, True)]
    assert found[-1]["answer"] == str(session.ask(QUESTION))


def test_an_upload_plays_at_its_own_speed(service: Service, uploaded: str) -> None:
    with service.socket(uploaded) as socket:
        socket.send(json.dumps({"type": "play"}))
        first = events(socket, "chunk")[-1]
    assert first["behind"] >= 0, "a chunk came before a camera would have completed it"


def test_the_page_needs_nothing_from_elsewhere(service: Service) -> None:
    status, page = service.call("GET", "/")
    assert status == 200
    text = page.decode()
    assert not [
        word
        for word in ("http://", "https://", 'src="', "@import", "url(")
        if word in text.replace("http://www.w3.org/2000/svg", "")
    ]


def test_sample_clips_are_listed_and_sent_and_no_other_file_is(media: Path) -> None:
    (media.parent / "secret.txt").write_text("no")
    with running(samples=media.parent) as service:
        listed = {"file": "clip.mkv", "question": "", "bytes": media.stat().st_size}
        assert service.call("GET", "/api/about") == (200, {"prompts": [], "samples": [listed]})
        assert service.call("GET", "/api/samples/clip.mkv") == (200, media.read_bytes())
        for other in ("secret.txt", "..%2Fclip.mkv", "%2Fetc%2Fpasswd"):
            assert service.call("GET", f"/api/samples/{other}")[0] == 404


def test_health_readiness_and_metrics(service: Service) -> None:
    assert service.call("GET", "/healthz") == (200, {"status": "ok"})
    assert service.call("GET", "/readyz")[1]["status"] == "ready"
    service.session()
    text = service.call("GET", "/metrics")[1].decode()
    assert "# TYPE mirasol_sessions gauge" in text
    assert f"mirasol_sessions {len(service.manager.sessions)}.0" in text


def test_every_path_is_described_with_its_refusals(service: Service) -> None:
    description = service.call("GET", "/openapi.json")[1]
    found = {(method.upper(), path) for path, item in description["paths"].items() for method in item}
    assert found == {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/api/about"),
        ("GET", "/api/samples/{file}"),
        ("POST", "/api/sessions"),
        ("GET", "/api/sessions/{id}"),
        ("DELETE", "/api/sessions/{id}"),
        ("PUT", "/api/sessions/{id}/media"),
        ("POST", "/api/sessions/{id}/answer"),
    }
    for path, item in description["paths"].items():
        for method, operation in item.items():
            assert operation["description"], (method, path)
            refused = [answer for status, answer in operation["responses"].items() if status >= "400"]
            assert refused and all(a["content"]["application/json"]["schema"] for a in refused), (method, path)
