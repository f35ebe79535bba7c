"""VGG-Sound (Chen et al. 2020): top-1 over the 15,446 test clips of 309 classes; the paper's supplement says 300.

Source of the score: https://www.robots.ox.ac.uk/~vgg/data/vggsound/ (top-1 accuracy). Clips vanish from YouTube, so
that others' figures stand on fewer: the number of clips and the hash of their ids are part of the score.
"""

from __future__ import annotations

from mirasol.tasks.base import class_names, open_ended
from mirasol.tasks.base.protocol import Protocol

PROTOCOL = Protocol(
    name="vggsound",
    about="one of 309 classes of sound whose source is seen, by top-1",
    source="Chen et al. 2020, https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
    metric="top1",
    split="test",
    judge=open_ended.judge,
    parts=lambda question: (),
    more=class_names.more,
    published={"test": 15_446},
    classes=309,
    closed="classes",
)
