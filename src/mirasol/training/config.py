"""Settings of a training phase (S 4), and the description of one run. No torch here: ``params check`` reads it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mirasol.core.errors import MirasolError
from mirasol.core.fields import param
from mirasol.media.clip import ClipSpec, View

UNLABELLED = "unlabelled"  # clips without texts: the latent and the reconstruction losses alone
TASKS = ("caption", "audio_class", "qa", UNLABELLED)
GROUPS = (
    "audio",
    "vit",
    "tubes",
    "combiner",
    "latent",
    "reconstruction",
    "cross_attention",
    "text_backbone",
)  # of mirasol.model.parameter_groups
OPTIMIZERS = ("adamw", "adam", "muon")
SHARDINGS = ("none", "full", "hybrid")
RECOMPUTE = ("none", "selective", "full")
INIT = re.compile(r"(?P<folder>.+)@(?P<hash>[0-9a-f]{8,64})")  # weights, and how the SHA-256 of their bytes begins
ANSWER = "MIRASOL_CHECKPOINT"  # variable with the answer to a refusal; it reaches a stage under `dvc repro`, too
RESUME, START = "resume-anyway", "start-anew"
MIX_ENTRY = re.compile(r"(?P<name>[\w.-]+):(?P<weight>[1-9][0-9]{0,3})")


@dataclass(frozen=True)
class PhaseConfig:
    """One of the sections `pretrain`, `audio_pretrain`, `finetune`."""

    tasks: str = param("qa", f"tasks of the examples to learn from, of {', '.join(TASKS)}")
    trained: str = param("all", f"parts that learn, `all` or some of {', '.join(GROUPS)}; others are frozen (S 4)")
    steps: int = param(1000, "optimiser steps; 0: by `epochs`", ge=0)
    batch_size: int = param(16, "clips per step", ge=1)
    optimizer: str = param(
        "adamw",
        "`adamw`, `adam` (the weight decay is part of the gradient), or `muon`: matrices move along the nearest "
        "orthogonal one to their momentum, the rest by AdamW",
        choices=OPTIMIZERS,
    )
    lr: float = param(1e-3, "peak learning rate", gt=0)
    warmup: int = param(100, "steps of linear warm-up", ge=0)
    epochs: int = param(0, "passes over its clips; 0: by `steps`", ge=0)
    weight_decay: float = param(0.01, "weight decay of matrices", ge=0)
    clip_norm: float = param(1.0, "gradients are scaled down to this norm, 0 for never", ge=0)
    text_weight: float = param(1.0, "weight of the text loss (P 3.5)", ge=0)
    latent_weight: float = param(0.03, "weight of the latent loss (P 3.5)", ge=0)
    latent_target_gradient: bool = param(False, "whether the latent loss moves x_{t+1}, its target, too (P 3.3)")
    video_weight: float = param(0.03, "weight of the video reconstruction loss (P 3.5)", ge=0)
    audio_weight: float = param(
        0.03, "weight of the audio reconstruction loss (P 3.5); no effect without `model.audio_reconstruction`", ge=0
    )
    caption_weight: float = param(0.3, "weight of a caption among a clip's texts, 0 leaves captions out", ge=0)
    label_smoothing: float = param(0.0, "label smoothing of the text loss", ge=0, lt=1)
    feature_mask: float = param(0.0075, "share of combiner features masked in training (P 3.6)", ge=0, lt=1)
    texts_per_clip: int = param(8, "Q, texts drawn per clip and step", ge=1)
    mute: float = param(0.05, "share of clips whose sound is silenced; 1: learn from the picture alone", ge=0, le=1)
    blank: float = param(0.05, "share of clips whose picture is blanked; 1: learn from the sound alone", ge=0, le=1)
    crop: float = param(
        1.0,
        "smallest share of the picture that a random crop keeps, one box for the whole clip; 1: no crop",
        gt=0,
        le=1,
    )
    flip: float = param(
        0.0, "share of clips whose picture is mirrored; leave 0 where left and right are asked for", ge=0, le=1
    )
    spec_time: float = param(0.0, "longest share of a clip's sound that a mask hides (SpecAugment)", ge=0, lt=1)
    spec_mel: float = param(0.0, "largest share of the mel bands that a mask hides (SpecAugment)", ge=0, lt=1)
    mixup: float = param(
        0.0, "alpha of mixup: two clips in one by Beta(alpha, alpha), the losses of their texts alike; 0: none", ge=0
    )
    jitter: int = param(0, "chunks at most that a clip begins later; what comes before is not seen", ge=0)
    checkpoint_every: int = param(200, "steps between evaluations on the val split and checkpoints in runs/", ge=1)
    val_clips: int = param(256, "clips of the val split that each evaluation scores", ge=1)
    ema: float = param(
        0.0,
        "share of itself that a moving average of the weights keeps in a step, such as 0.999; the average is "
        "evaluated and exported; 0: none",
        ge=0,
        lt=1,
    )
    keep: str = param(
        "last",
        "weights that it hands on: `last`, or `best`, of the evaluation with the most right answers on the val split",
        choices=("last", "best"),
    )
    patience: int = param(
        0, "evaluations in a row without a better one that end it, under `keep: best`; 0: never", ge=0
    )
    size: int = param(0, "pixels that it sees of a frame; 0: `clip.size`", ge=0)
    chunks: int = param(0, "first chunks of a clip that it sees; 0: all", ge=0)
    frames_per_chunk: int = param(0, "frames that it sees of a chunk; 0: all", ge=0)
    max_text: int = param(0, "as in `tokenizer`; 0: that", ge=0, le=8192)
    max_chunks: int = param(0, "as in `model`; 0: that", ge=0, le=65536)
    dropout: float = param(0.0, "dropout rate", ge=0, lt=1)
    mix: str = param(
        "",
        "data sets and their shares of the training clips, as in `msrvtt-qa:3 vggsound:1`: exactly 3 and 1 in any 4; "
        "empty: all clips alike",
    )

    @property
    def view(self) -> View:
        """What the phase sees of clips at rest."""
        return View(self.size, self.chunks, self.frames_per_chunk)


@dataclass(frozen=True)
class TrainingConfig:
    """The `training` section: settings of all three phases."""

    init: str = param(
        "",
        "weights that the first phase starts from, `FOLDER@HASH` as `mirasol weights import` prints it; empty: random",
    )
    seed: int = param(1, "seed of initialisation, order and masking", ge=0)
    threads: int = param(2, "CPU threads of torch: part of the result, bit for bit", ge=1, le=1024)
    workers: int = param(
        0, "loader processes; 0 reads in the training process: fastest once decoded clips are cached", ge=0, le=256
    )
    micro_batch: int = param(
        0, "clips of a device's forward and backward pass, whose gradients add up; 0: its whole share", ge=0
    )
    max_damaged: float = param(
        0.01,
        "share of a split's clips that may be damaged before training or evaluation fails: in train others take their "
        "place, in val they are left out, in the evaluation they count as wrong",
        ge=0,
        le=1,
    )
    accelerator: str = param("auto", "where to train and evaluate", choices=("auto", "cpu", "gpu"))
    attention: str = param(
        "auto",
        "how chunk-causal attention is computed, always with the same result but for rounding; `auto`: flex on CUDA, "
        "loop elsewhere",
        choices=("auto", "dense", "loop", "flex"),
    )
    sharding: str = param(
        "none",
        "what several processes hold: `none` the whole model each (DDP), `full` a part of it (FSDP2), `hybrid` a part "
        "within each node and copies on the others; not part of the result",
        choices=SHARDINGS,
    )
    recompute: str = param(
        "none",
        "what the backward pass computes again to save memory: `selective` all but products and attention, `full` all "
        "of a block; not part of the result",
        choices=RECOMPUTE,
    )
    compile: bool = param(False, "compile each block (torch.compile); a result may round differently")
    logger: str = param(
        "tensorboard",
        "what shows the curves while training, besides `curves.jsonl`; all but `tensorboard` and `none` are extras",
        choices=("tensorboard", "dvclive", "wandb", "mlflow", "none"),
    )
    timeout: float = param(1800.0, "seconds that processes wait for each other", gt=0)
    keep_checkpoints: int = param(2, "last checkpoints kept", ge=1, le=1000)
    keep_every: int = param(0, "steps between checkpoints kept for good; 0: none", ge=0)
    precision: str = param("32-true", "Lightning's precision", choices=("32-true", "bf16-mixed", "16-mixed"))


def are_names(text: str, known: tuple[str, ...], also: str = "") -> bool:
    """Whether ``text`` is one or more of ``known``, each once, with blanks between them; or ``also``."""
    names = text.split()
    return text == also != "" or (0 < len(names) == len(set(names)) and set(names) <= set(known))


def is_mix(text: str) -> bool:
    """Whether ``text`` is ``NAME:WEIGHT ...`` with each name once, or empty."""
    found = [MIX_ENTRY.fullmatch(entry) for entry in text.split()]
    return all(found) and len({match["name"] for match in found if match}) == len(found)


def parse_mix(text: str) -> dict[str, int]:
    """The weight of each data set in ``PhaseConfig.mix``, by name.

    Raises:
        ValueError: it is not a mix.
    """
    if not is_mix(text):
        raise ValueError(f"mix {text!r}: expected NAME:WEIGHT, weights from 1 to 9999, each name once")
    return {name: int(weight) for name, _, weight in (entry.rpartition(":") for entry in text.split())}


@dataclass(frozen=True)
class Processes:
    """The processes that train together; a launcher starts them, and only the order of sums depends on them."""

    devices: int = 1  # on each node
    nodes: int = 1

    @property
    def count(self) -> int:
        """All of them."""
        return self.devices * self.nodes


def is_rank() -> bool:
    """Whether an agent of torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def started_processes() -> Processes:
    """The processes that this one trains with, by torchrun's environment; a process that it did not start is alone."""
    if not is_rank():
        return Processes()
    world, local = (int(os.environ[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return Processes(local, world // local)


@dataclass(frozen=True)
class RunPaths:
    """Where a phase reads and writes."""

    shards: Path  # folder with `shards.json`
    tokenizer: Path  # `tokenizer.json`
    cache: Path  # folder of decoded clips, for all phases and processes of this machine
    runs: Path  # folder of the run that survives a kill: checkpoint, curves, damaged clips, TensorBoard files
    out: Path  # folder for `weights.safetensors`, `config.json` and `curves.jsonl`, each written whole
    init: Path | None = None  # folder of the weights to start from; None: random ones by the seed


@dataclass(frozen=True)
class PhaseRun:
    """One run of a training phase."""

    name: str  # `pretrain`, `audio_pretrain` or `finetune`
    config: PhaseConfig
    training: TrainingConfig
    clip: ClipSpec
    paths: RunPaths
    before: tuple[str, ...] = ()  # tasks of the phases before, which are scored too: they should not be forgotten
    processes: Processes = Processes()

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the phase learns from."""
        return tuple(self.config.tasks.split())

    @property
    def required(self) -> bool:
        """Whether missing examples are an error; without them a phase before the last leaves the weights unchanged."""
        return "qa" in self.tasks

    @property
    def samples(self) -> int:
        """Training samples of the whole run, over all processes."""
        return self.config.steps * self.config.batch_size


def check_processes(name: str, config: PhaseConfig, training: TrainingConfig, processes: Processes) -> None:
    """Check that each process of phase ``name`` gets an equal share of a step, in whole micro-batches, and shards.

    Raises:
        MirasolError: every setting that does not go with ``processes``.
    """
    wrong, count, batch_size, micro = [], processes.count, config.batch_size, training.micro_batch
    many = f"{processes.devices} devices x {processes.nodes} nodes of cluster.yaml"
    if batch_size % count:
        wrong.append(
            f"{name}.batch_size is {batch_size}, the clips of one step on all devices; it does not divide "
            f"among {count} ({many}): choose a multiple of {count}"
        )
    elif 0 < micro < batch_size // count and batch_size // count % micro:
        share = batch_size // count
        wrong.append(
            f"training.micro_batch is {micro}; it does not divide the {share} clips that a device takes of "
            f"{name}.batch_size {batch_size}: choose a divisor of {share}, or 0 for all of them at once"
        )
    if training.sharding != "none" and count == 1:
        wrong.append(
            f"training.sharding is {training.sharding}, but one process trains ({many}): "
            "set training.sharding to none, or start more processes"
        )
    elif training.sharding == "hybrid" and processes.nodes == 1:
        wrong.append(
            "training.sharding is hybrid, shards within a node and copies of them on others, but cluster.yaml has one "
            "node: set training.sharding to full"
        )
    if training.sharding != "none" and training.precision == "16-mixed":
        wrong.append(
            f"training.precision is 16-mixed, which training.sharding {training.sharding} cannot do: "
            "set training.precision to bf16-mixed"
        )
    if wrong:
        raise MirasolError("\n".join(wrong))
