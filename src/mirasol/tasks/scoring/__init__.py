"""Scores without torch: normalisation, metrics, statistics, comparisons."""
