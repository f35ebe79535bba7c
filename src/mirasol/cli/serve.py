"""`mirasol serve`."""

from __future__ import annotations

from pathlib import Path

from mirasol.cli import console as say
from mirasol.serve.limits import Limits
from mirasol.serve.run import serve as run_serve


def serve(
    bundle: Path, host: str, port: int, sessions: int, max_upload: int, idle: float, threads: int, provider: str
) -> None:
    """Serve until Ctrl-C."""
    limits = Limits(sessions=sessions, upload_bytes=max_upload << 20, idle_seconds=idle)
    run_serve(bundle, host=host, port=port, limits=limits, threads=threads, provider=provider, say=say.note)
