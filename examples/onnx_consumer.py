"""Run a bundle with onnxruntime and its contract alone: no mirasol, no PyTorch.

    python examples/onnx_consumer.py build/bundle

Replays the golden inputs chunk by chunk and token by token with the graphs of every opset, and compares with
PyTorch's outputs. A program in any language does the same: bind inputs by name, and feed each state output back as the
input of its pair.

Exit status: 0 where every output is within the contract's tolerance, 1 where not, 2 if the bundle cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at import: else onnxruntime sends usage data
import onnxruntime


class Graph:
    """One ONNX file with its state."""

    def __init__(self, file: Path, spec: dict) -> None:
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.outputs = [output["name"] for output in spec["outputs"]]
        self.pairs = spec["states"]
        self.inputs = {tensor["name"]: tensor for tensor in spec["inputs"]}
        self.state = {  # before the first step: one value everywhere
            pair["input"]: np.full(tensor["shape"], pair["initial"], tensor["dtype"])
            for pair in self.pairs
            for tensor in [self.inputs[pair["input"]]]
        }

    def step(self, **inputs: np.ndarray) -> np.ndarray:
        """The graph's first output: audio, x, h or logits. The others are the next step's state."""
        values = dict(zip(self.outputs, self.session.run(self.outputs, inputs | self.state), strict=True))
        self.state = {pair["input"]: values[pair["output"]] for pair in self.pairs}
        return values[self.outputs[0]]


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest expected value; infinite if an output is not finite."""
    return float(np.abs(found - expected).max() / np.abs(expected).max()) if np.isfinite(found).all() else np.inf


def replay(bundle: Path, contract: dict, files: dict) -> float:
    """Stream the golden inputs through the graphs of one opset: the largest difference to PyTorch's outputs."""
    audio, aligned, latent, text = (
        Graph(bundle / files[name], contract["graphs"][name])
        for name in ("audio_step", "encoder_combiner_step", "latent_step", "text_step")
    )
    golden, clip = dict(np.load(bundle / contract["golden"]["file"], allow_pickle=False)), contract["clip"]
    seconds = clip["frames_per_chunk"] / clip["fps"]
    found: list[float] = []
    low = 0
    for t in range(contract["golden"]["chunks"]):  # a stream: one chunk after the other
        high = int((t + 1) * seconds * clip["sample_rate"] + 0.5)
        samples = np.zeros(audio.inputs["samples"]["shape"], np.float32)  # ignored after the count
        samples[0, : high - low] = golden["samples"][low:high]
        mel = audio.step(samples=samples, count=np.array([high - low]))
        x = aligned.step(**{n: golden[n][t : t + 1] for n in ("video", "audio", "video_present", "audio_present")})
        h = latent.step(x=x)
        found += [difference(value[0], golden[name][t]) for name, value in (("audio", mel), ("x", x), ("h", h))]
        low = high
    memory = {name: golden[name] for name in ("memory", "memory_valid")}  # h of the last chunks, newest last
    for i in range(contract["golden"]["tokens"]):  # a text: one token after the other
        logits = text.step(token=golden["token"][i : i + 1], **memory)
        found.append(difference(logits[0], golden["logits"][i]))
    return max(found)


def main(bundle: Path) -> int:
    """Returns the process's exit status."""
    try:
        contract = json.loads((bundle / "contract.json").read_text(encoding="utf-8"))
        if contract["version"] != 2:
            raise ValueError(f"the contract is of version {contract['version']}, this program knows version 2")
        for name, expected in contract["files"].items():
            if hashlib.sha256((bundle / name).read_bytes()).hexdigest() != expected:
                raise ValueError(f"{name} is not the file that was exported")
        worst = max(replay(bundle, contract, files) for files in contract["opsets"].values())
    except Exception as error:  # onnxruntime's errors have no common base
        print(f"the bundle cannot be read: {error}", file=sys.stderr)
        return 2
    tolerance = contract["golden"]["tolerance"]
    print(f"largest relative difference to PyTorch: {worst:.1e} (the contract allows {tolerance:.0e})")
    return 0 if worst <= tolerance else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/onnx_consumer.py BUNDLE")
    sys.exit(main(Path(sys.argv[1])))
