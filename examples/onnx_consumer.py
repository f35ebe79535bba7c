"""Run a bundle with onnxruntime and its contract alone: no mirasol, no PyTorch.

    python examples/onnx_consumer.py build/bundle

Replays the golden inputs chunk by chunk and token by token, compares with what PyTorch computed, and shows
all that a program in any language has to do: bind inputs by name, and hand each state output back as the
input that it is paired with.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


class Graph:
    """One ONNX file, and its state between two steps."""

    def __init__(self, bundle: Path, spec: dict) -> None:
        self.session = onnxruntime.InferenceSession(str(bundle / spec["file"]), providers=["CPUExecutionProvider"])
        self.outputs = [output["name"] for output in spec["outputs"]]
        self.pairs = spec["states"]
        tensors = {tensor["name"]: tensor for tensor in spec["inputs"]}
        self.state = {  # before the first step: one value everywhere
            pair["input"]: np.full(tensors[pair["input"]]["shape"], pair["initial"], tensors[pair["input"]]["dtype"])
            for pair in self.pairs
        }

    def step(self, **inputs: np.ndarray) -> np.ndarray:
        """The graph's first output: x, h or logits. The others are the next step's state."""
        values = dict(zip(self.outputs, self.session.run(self.outputs, inputs | self.state), strict=True))
        self.state = {pair["input"]: values[pair["output"]] for pair in self.pairs}
        return values[self.outputs[0]]


def main(bundle: Path) -> int:
    """Returns the process's exit status: 0 where every output is within the contract's tolerance."""
    contract = json.loads((bundle / "contract.json").read_text(encoding="utf-8"))
    for name, expected in contract["files"].items():
        if hashlib.sha256((bundle / name).read_bytes()).hexdigest() != expected:
            print(f"{name} is not the file that was exported")
            return 2
    golden = dict(np.load(bundle / contract["golden"]["file"], allow_pickle=False))
    aligned, latent, text = (
        Graph(bundle, contract["graphs"][name]) for name in ("encoder_combiner_step", "latent_step", "text_step")
    )
    worst = 0.0

    def compare(found: np.ndarray, expected: np.ndarray) -> None:
        nonlocal worst
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))

    for t in range(contract["golden"]["chunks"]):  # a stream: one chunk after the other
        names = ("video", "audio", "video_present", "audio_present")
        x = aligned.step(**{name: golden[name][t : t + 1] for name in names})
        h = latent.step(x=x)
        compare(x[0], golden["x"][t])
        compare(h[0], golden["h"][t])
    memory = {"memory": golden["memory"], "memory_valid": golden["memory_valid"]}  # h of the last chunks, newest last
    for i in range(contract["golden"]["tokens"]):  # a text: one token after the other
        logits = text.step(token=golden["token"][i : i + 1], **memory)
        compare(logits[0], golden["logits"][i])
    tolerance = contract["golden"]["tolerance"]
    print(f"largest relative difference to PyTorch: {worst:.1e} (the contract allows {tolerance:.0e})")
    return 0 if worst <= tolerance else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/onnx_consumer.py BUNDLE")
    sys.exit(main(Path(sys.argv[1])))
