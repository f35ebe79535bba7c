"""Which code decides which bytes: the one list behind dvc.yaml, the key of kept clips and a checkpoint's fingerprint.

An entry is a file or a package below ``src/mirasol``. ``tests/pipeline/test_dvc_yaml.py`` follows the imports of each
stage and checks that this list or ``NEUTRAL`` holds every file that the stage reaches.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

TOKENIZER = ("tokenizer.py",)
# From source to clip: decode, resample, encode.
CLIPS = (
    "data/shards/codec.py",
    "data/shards/encode.py",
    "media/container.py",
    "media/decode.py",
    "media/log_mel.py",
    "media/resample.py",
)
SHARDS = (*CLIPS, "data/shards/build.py", "data/shards/format.py")
# From clip to sample.
SAMPLES = (
    "data/conditions.py",
    "data/loading/augment.py",
    "data/loading/dataset.py",
    "data/loading/facts.py",
    "data/loading/loader.py",
    "data/loading/mixing.py",
    "data/loading/samples.py",
    "data/loading/texts.py",
    "data/loading/view.py",
    "data/loading/waveform.py",
    "data/shards/chunk_codec.py",
    "media/log_mel.py",
    "media/yuv.py",
    "tokenizer.py",
)
# From sample to weights and curves.
TRAINING = (
    *SAMPLES,
    "model",
    "training/best.py",
    "training/callbacks.py",
    "training/curves.py",
    "training/data_module.py",
    "training/ema.py",
    "training/module.py",
    "training/muon.py",
    "training/optim.py",
    "training/parallel.py",
    "training/phases.py",
    "training/recompute.py",
    "training/start.py",
    "training/trainer.py",
    "training/validation.py",
)
# A checkpoint resumes only under the code of its training and of the clips that it reads.
CHECKPOINT = (*TRAINING, *CLIPS)
# What a valid params.yaml is.
PARAMS = (
    "data/shards/config.py",
    "export/config.py",
    "media/clip.py",
    "model/config.py",
    "model/sizes/presets.py",
    "pipeline/params",
    "tasks/scoring/config.py",
    "tokenizer.py",
    "training/config.py",
)
STAGES: dict[str, tuple[str, ...]] = {
    "params": PARAMS,
    "tokenizer": TOKENIZER,
    "shards": SHARDS,
    "pretrain": TRAINING,
    "audio_pretrain": TRAINING,
    "finetune": TRAINING,
    "evaluate": (
        *SAMPLES,
        "data/conditions.py",
        "evaluation/baselines.py",
        "evaluation/evaluate.py",
        "evaluation/features.py",
        "evaluation/generate.py",
        "model",
        "tasks/scoring/linear.py",
        "tasks/scoring/metrics.py",
        "tasks/scoring/normalise.py",
        "tasks/scoring/predictions.py",
        "tasks/scoring/statistics.py",
    ),
    "export": (
        "data/conditions.py",
        "data/loading/dataset.py",
        "data/loading/facts.py",
        "data/loading/view.py",
        "data/loading/waveform.py",
        "data/shards/chunk_codec.py",
        "export/audio.py",
        "export/bundle.py",
        "export/io_spec.py",
        "export/model_card.py",
        "export/onnx.py",
        "export/onnx_passes.py",
        "export/parity.py",
        "export/prompts.py",
        "export/quantize.py",
        "export/quantize_check.py",
        "media/log_mel.py",
        "media/yuv.py",
        "model",
        "runtime",
        "tasks/scoring/normalise.py",
        "tokenizer.py",
    ),
    "benchmark": (
        "export/audio.py",
        "export/benchmark.py",
        "export/io_spec.py",
        "media/decode.py",
        "media/log_mel.py",
        "media/resample.py",
        "model",
        "runtime",
        "tasks/scoring/normalise.py",
        "tokenizer.py",
    ),
    "reports": ("pipeline/figures.py",),
}
ENTRIES = tuple(sorted({entry for entries in STAGES.values() for entry in entries}))
# Files that stages reach and that decide no byte: settings, whose values DVC compares; files, errors, progress;
# readers that return the bytes as written, or fail; processes, locks and copies; checkpoints, stops, figures of speed.
NEUTRAL = (
    "core",
    "data/linked_media.py",
    "data/loading/decoded_cache.py",
    "data/loading/failures.py",
    "data/loading/reader.py",
    "data/manifest.py",
    "data/shards/config.py",
    "data/shards/encoded_cache.py",
    "data/shards/executors.py",
    "data/storage.py",
    "export/config.py",
    "media/clip.py",
    "media/probe.py",
    "media/sandbox.py",
    "model/config.py",
    "model/sizes/presets.py",
    "pipeline",
    "tasks/scoring/config.py",
    "training/checkpoint.py",
    "training/config.py",
    "training/loggers.py",
    "training/ranks.py",
    "training/resume.py",
    "training/saving.py",
    "training/shards.py",
    "training/speed.py",
    "training/stopping.py",
    "training/strategy.py",
    "training/tensor_file.py",
    "training/transfer.py",
    "training/weights.py",
)


def files_of(entries: Iterable[str], package: Path = PACKAGE) -> Iterator[Path]:
    """The Python files that ``entries`` name, each once, in the order of their paths."""
    found: set[Path] = set()
    for entry in entries:
        path = package / entry
        found |= set(path.rglob("*.py")) if path.is_dir() else {path}
    yield from sorted(found)


def code_hash(entries: Iterable[str], package: Path = PACKAGE) -> str:
    """SHA-256 of the code in ``entries``; comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for path in files_of(entries, package):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
        digest.update(f"{path.relative_to(package).as_posix()}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()
