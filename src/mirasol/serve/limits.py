"""Resources that one client, and all clients together, may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Each limit has its own status and message, see docs/streaming.md."""

    sessions: int = 8  # at once; each may have a decoding process of about 100 MB
    upload_bytes: int = 256 << 20  # of one file; one file a session
    body_bytes: int = 1 << 16  # of every other request
    question_characters: int = 500
    idle_seconds: float = 120.0  # until an unused session ends
    stall_seconds: float = 20.0  # for the client's next bytes, or the decoder's next chunk
    requests: int = 32  # in flight at once, health and metrics aside
    decoder_bytes: int = 2 << 30  # address space of a decoding process
