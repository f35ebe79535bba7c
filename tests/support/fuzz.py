"""Malformed requests made from an OpenAPI description: the right shape, with something wrong about it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

TEXTS = ("", " ", "which sound is it", "\0", "\ud800", "é" * 3000, "../../etc/passwd", "%00", "{{7*7}}", "-1", "null")
VALUES = (None, True, -1, 1e308, [], {}, [[]], *TEXTS)
BODIES = (
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[" * 20000,
    b'{"question": NaN}',
    b'{"question": "\\ud800"}',
    b'{"question": "\xff"}',
    b'{"question": 1' + b"0" * 5000 + b"}",
    b'{"question": "a", "question": []}',
    b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\xff\xff",
    b"\x1a\x45\xdf\xa3" + b"\xff" * 200,
    b"x" * 70000,
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {},
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/json; charset=utf-99"},
    {"Content-Type": "multipart/form-data"},
    {"Content-Encoding": "gzip"},
    {"Origin": "http://elsewhere.example"},
    {"Authorization": "Bearer \xe9"},
    {"Range": "bytes=9-1"},
    {"Expect": "something"},
    {"X": "y" * 8000},
    {"Host": "elsewhere.example"},
    {"Host": "[::1"},
    {"Content-Length": "-1"},
    {"Content-Length": "99999999999999999999"},
    {"Upgrade": "websocket", "Connection": "Upgrade"},
    {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "99"},
)


class Fuzzed(NamedTuple):
    """One request."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


def requests(description: dict[str, Any], ids: list[str], seed: int) -> Iterator[Fuzzed]:
    """Endless requests; ``ids`` are names of sessions that exist, or did."""
    draw = random.Random(seed)
    operations = [
        (method, path, item[method]) for path, item in sorted(description["paths"].items()) for method in item
    ]
    while True:
        method, path, operation = draw.choice(operations)
        if draw.random() < 0.1:
            method = draw.choice(("get", "post", "put", "patch", "delete", "head", "options", "trace", "brew"))
        path = path.replace("{id}", _segment(draw, ids))
        if draw.random() < 0.2:
            path += "?" + _quoted(draw.choice(TEXTS)) + "=" + _quoted(draw.choice(TEXTS))
        content = operation.get("requestBody", {}).get("content", {})
        headers = dict(draw.choice(HEADERS))
        if "application/json" in content and draw.random() < 0.6:
            schema = _resolved(description, content["application/json"]["schema"])
            body = json.dumps(_mutated(draw, schema)).encode()
            headers = {"Content-Type": "application/json"} | headers
        else:
            body = draw.choice(BODIES) if draw.random() < 0.7 else draw.randbytes(draw.randrange(300))
        yield Fuzzed(method.upper(), path, body, headers)


def _mutated(draw: random.Random, schema: dict[str, Any]) -> Any:
    """An object of the schema whose fields are missing, of other types, too many, or not an object at all."""
    if draw.random() < 0.15:
        return draw.choice(VALUES)
    found = {name: draw.choice(VALUES) for name in schema.get("properties", {}) if draw.random() < 0.85}
    if draw.random() < 0.3:
        found[draw.choice(TEXTS) or "more"] = draw.choice(VALUES)
    return found


def _resolved(description: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = description["components"]["schemas"][name] if name else schema
    return found


def _segment(draw: random.Random, ids: list[str]) -> str:
    wrong = ("x", "a" * 32, "%2e%2e", "%00", "a" * 5000, "%ff%fe", "..", "*")
    return draw.choice(ids) if draw.random() < 0.3 else draw.choice(wrong)


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))[:6000]
