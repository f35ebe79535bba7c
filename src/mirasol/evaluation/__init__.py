"""Answers on held-out clips, their score with intervals, and the report."""
