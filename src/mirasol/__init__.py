"""mirasol: train Mirasol3B on your own videos, and stream answers from what you trained.

Importing this package imports no room: each is imported by whoever needs it.
"""

import os

# From 1.29 on onnxruntime reports to its makers and leaves an identifier in the home folder: not unless you say so. It
# looks at this once, when it is imported (decision 0058).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
