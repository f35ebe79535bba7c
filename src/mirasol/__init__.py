"""mirasol: train Mirasol3B on your own videos, and stream answers from the result.

    import mirasol

    model = mirasol.load("build/bundle")
    print(model.answer("clip.mp4", "which sound is heard first?"))

Importing this package imports none of its parts.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mirasol.runtime.model import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"

# onnxruntime 1.29 and later send usage data and write an identifier to the home folder unless this is set before its
# import (decision 0058).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> object:
    if name == "load":
        from mirasol.runtime.model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
