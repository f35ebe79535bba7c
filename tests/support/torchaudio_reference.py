"""torchaudio's transforms, on a torch without CUDA too: import them from here.

torchaudio's wheel links CUDA, and on a CPU torch ``import torchaudio`` fails on a missing library. Its
transforms are plain torch code and do not need that extension, so where torch has no CUDA a stand-in that
says "no extension" is put in its place first.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch


def _no_extension(*_: Any) -> Any:
    def unavailable(*_: Any, **__: Any) -> Any:
        raise RuntimeError("this torchaudio function needs its compiled extension: install a CUDA build of torch")

    return unavailable


if torch.version.cuda is None and "torchaudio" not in sys.modules:
    _stand_in = ModuleType("torchaudio._extension")
    vars(_stand_in).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=_no_extension,
    )
    sys.modules["torchaudio._extension"] = _stand_in

from torchaudio import functional, transforms  # noqa: E402

__all__ = ["functional", "transforms"]
