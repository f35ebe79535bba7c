"""Answers on held-out clips, their scores with intervals, and the report.

`evaluate` runs a split or a benchmark, `generate` answers batches; `report` writes the page, `attribution` explains.
"""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__, evaluate="Evaluator", generate="answer answer_all score_answers score_options conditions"
)
