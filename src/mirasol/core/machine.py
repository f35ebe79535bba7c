"""The processor of this machine, as reports name it. The packages' own versions decide bits as much as it does."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """The processor's name; its architecture where the system tells no more."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
