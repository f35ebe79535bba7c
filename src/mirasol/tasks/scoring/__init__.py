"""Scores without torch: normalisation, metrics, statistics, comparisons."""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    normalise="exact_match",
    metrics="score",
    statistics="cluster_bootstrap paired_bootstrap",
    config="EvaluateSpec",
    predictions="Prediction read_predictions write_predictions",
)
