"""Published data sets, one file each: how its annotation files become a manifest, and how its answers are scored.

`registry` lists them, `questions` and `score` serve `mirasol score`; `base` and `scoring` are shared.
"""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    registry="ADAPTERS PROTOCOLS protocol_of",
    score="Scored score_file score_predictions",
    questions="questions_of",
)
