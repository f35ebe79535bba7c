"""This machine, without torch: the processor as reports name it, its free cores, whether there is an accelerator.

The packages' own versions decide bits as much as the processor does.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """The processor's name; its architecture where the system tells no more."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_accelerator() -> bool:
    """Whether a GPU's device is there, or the machine is a Mac, which has one."""
    devices = Path("/dev")  # dxg: a GPU under Windows' Linux
    return (
        platform.system() == "Darwin"
        or any(devices.glob("nvidia[0-9]*"))
        or any((devices / name).exists() for name in ("kfd", "dxg"))
    )
