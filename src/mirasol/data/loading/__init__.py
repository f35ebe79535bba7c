"""Reading shards: samples, augmentation, mixing, batches, resume.

`reader` opens tars, `dataset` decodes clips, `samples` numbers training samples, `loader` makes batches.
"""

from mirasol.core.face import face

__all__, __getattr__ = face(
    __name__,
    reader="ShardReader",
    dataset="ShardDataset",
    samples="SampleSettings TrainingSamples EvaluationSamples",
    loader="GlobalOrder BatchForm make_loader eval_loader collate log_mel_of",
    mixing="Mixture",
)
