"""Dense bf16 peaks of GPUs, by which the model's work becomes a share (MFU)."""

from __future__ import annotations

# TFLOP/s without sparsity, by the makers' data sheets. Names that hold another one come first.
PEAKS = {"GH200": 989, "H200": 989, "H100 NVL": 835, "H100 PCIe": 756, "H100": 989, "A100": 312}


def peak_tflops(card: str) -> float | None:
    """Dense bf16 TFLOP/s of the card that torch calls ``card``; ``None`` for an unknown one."""
    return next((float(peak) for name, peak in PEAKS.items() if name in card), None)
