"""The model in PyTorch; imports torch and ``core`` only. `mirasol.py` reads like figure 3 of the paper.

`tubes`, `audio`, `vit`, `combiners`, `latent`, `reconstruction` and `text` are its parts, `streaming` the steps for
export, `sizes` the presets, `pretrained` other models' weights.
"""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    mirasol="Mirasol",
    batch="Batch Encoded text_targets",
    config="ModelConfig ModelSpec",
    generation="search Decoding Questions",
    streaming="EncoderCombiner Latent Text reset",
)
