"""ONNX graphs of the streaming steps, their comparison with torch, lower precisions, and the bundle."""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    bundle="TrainedModel export_bundle",
    config="ExportSpec BenchmarkSpec",
    parity="check_parity require_parity",
    quantize_check="export_precisions",
)
