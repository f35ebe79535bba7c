"""An RTSP server that plays one MPEG transport stream to each client, at its own speed: RTP within TCP (RFC 2326)."""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
SDP += "m=video 0 RTP/AVP 33\r\na=control:track\r\n"
PACKETS = 7 * 188  # bytes of the transport stream in one RTP packet


class _Client(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := self.rfile.readline().decode():
                headers = {}
                while header := self.rfile.readline().decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                method = line.split()[0]
                extra, body = {
                    "OPTIONS": ("Public: DESCRIBE, SETUP, PLAY\r\n", ""),
                    "DESCRIBE": (f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n", SDP),
                    "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""),
                    "PLAY": ("Session: 1\r\n", ""),
                }.get(method, ("", ""))
                self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {headers.get('cseq')}\r\n{extra}\r\n{body}".encode())
                if method == "PLAY":
                    self._play()
                    return

    def _play(self) -> None:
        content, seconds = self.server.played  # type: ignore[attr-defined]
        pieces = [content[at : at + PACKETS] for at in range(0, len(content), PACKETS)]
        began = time.monotonic()
        for number, piece in enumerate(pieces):
            at = seconds * number / len(pieces)
            time.sleep(max(0.0, began + at - time.monotonic()))
            rtp = struct.pack(">BBHII", 0x80, 33, number, round(at * 90000), 1) + piece
            self.wfile.write(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextlib.contextmanager
def serving(path: Path, seconds: float) -> Iterator[str]:
    """The address at which the transport stream ``path`` is played in ``seconds``; then the connection ends."""
    with _Server(("127.0.0.1", 0), _Client) as server:
        server.played = path.read_bytes(), seconds  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"rtsp://user:secret@127.0.0.1:{server.server_address[1]}/live"
        server.shutdown()
