"""The specification of a bundle, `contract.json`, and its check.

A bundle is a folder: ONNX graphs, `contract.json`, `tokenizer.json`, `golden.npz`, `README.md`, `LICENSE`. The
contract lists inputs, outputs and states of every graph, the formats of video and audio, and the SHA-256 of every
file. The exporter writes these dataclasses and the runtime reads them back, so that the two cannot drift.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol.core.errors import MirasolError
from mirasol.core.files import sha256_file
from mirasol.media.clip import ClipSpec
from mirasol.media.log_mel import FLOOR, HOP_SECONDS, MEAN_DB, SCALE_DB, WINDOW_SECONDS
from mirasol.tokenizer import ANSWER, BOS, EOS

CONTRACT_VERSION = 2
CONTRACT_FILE = "contract.json"
NOT_SHIPPED = "not_shipped.json"  # in a bundle: the precisions that lost too much, with the reason
AUDIO = "audio_step"
ENCODER_COMBINER = "encoder_combiner_step"
LATENT = "latent_step"
TEXT = "text_step"
GRAPHS = (AUDIO, ENCODER_COMBINER, LATENT, TEXT)
DTYPES = ("bool", "uint8", "int64", "float16", "float32")
MOST_PROMPTS = 2000  # of training, in a contract
ROLES = ("samples", "count", "video", "audio", "presence", "features", "token", "memory", "logits", "state")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph. Every dimension is fixed; the first is the batch, 1."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    role: str


@dataclass(frozen=True)
class StateSpec:
    """A state: the output of one step is the input of the next; it starts as ``initial`` everywhere."""

    input: str
    output: str
    initial: float


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX file and its inputs and outputs in the order of the graph."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[StateSpec, ...]

    def input(self, name: str) -> TensorSpec:
        """The input called ``name``."""
        return next(tensor for tensor in self.inputs if tensor.name == name)


@dataclass(frozen=True)
class VideoFormat:
    """Layout of a chunk of frames: planar YUV 4:2:0, rows of Y, then U, then V."""

    pixel_format: str = "yuv420p"
    range: str = "limited"
    matrix: str = "bt601"
    geometry: str = "centre square, then scaled to size x size"


@dataclass(frozen=True)
class AudioFormat:
    """From mono samples in [-1, 1], rounded to 16 bits, to `audio`, as in :mod:`mirasol.media.log_mel`.

    Frame i of a chunk ends i + 1 hops after the chunk's first sample and spans one window back, into the preceding
    chunk or zeros at the start of the stream. Hann window scaled to a sum of 2, power spectrum, triangles on the mel
    scale, 10 log10 with the minimum ``floor``, less ``mean_db``, over ``scale_db``, then the mean of the frames in each
    column. The graph `audio_step` computes the same for chunks of ``clip``'s length; chunk t ends before sample
    floor((t + 1) * seconds * rate + 0.5).
    """

    window_seconds: float = WINDOW_SECONDS
    hop_seconds: float = HOP_SECONDS
    mel_scale: str = "htk, triangles of peak 1 from 0 Hz to half the sample rate"
    floor: float = FLOOR
    mean_db: float = MEAN_DB
    scale_db: float = SCALE_DB


@dataclass(frozen=True)
class TokenizerFacts:
    """The vocabulary's file, and the ids around a text: bos, question, answer mark, answer, eos."""

    file: str
    bos: int = BOS
    eos: int = EOS
    answer: int = ANSWER


@dataclass(frozen=True)
class ModelFacts:
    """Sizes and properties of the model."""

    combiner: str
    latent: str
    width: int  # d
    combined: int  # m
    max_chunks: int  # R, chunks that the memory of the text model holds
    vocabulary: int  # V
    max_text: int  # L, tokens of a prompt with its answer
    max_answer: int  # tokens of an answer
    parameters: int
    precision: str


@dataclass(frozen=True)
class GoldenSpec:
    """Inputs and torch's outputs; a runtime's relative difference must be within ``tolerance``."""

    file: str
    chunks: int
    tokens: int
    tolerance: float


@dataclass(frozen=True)
class Provenance:
    """Origin of the weights; ``None`` where it is unknown."""

    commit: str | None
    changed: bool  # the working tree differed from the commit in code or params
    data: str | None  # DVC's hash of the data folder
    params: str | None  # SHA-256 of params.yaml


@dataclass(frozen=True)
class Contract:
    """The content of `contract.json`."""

    version: int
    clip: ClipSpec
    video: VideoFormat
    audio: AudioFormat
    model: ModelFacts
    tokenizer: TokenizerFacts
    opset: int
    graphs: dict[str, GraphSpec]  # their files are those of `opset`
    opsets: dict[str, dict[str, str]]  # opset -> graph -> file, the same graphs for other engines
    golden: GoldenSpec
    provenance: Provenance
    tools: dict[str, str]
    licence: str  # a file
    files: dict[str, str]  # name -> SHA-256, every file but contract.json
    prompts: tuple[str, ...] | None = None  # of training, the most frequent first; None: not recorded

    def to_json(self) -> str:
        """The text of `contract.json`: keys sorted, with its own hash in ``sha256``."""
        values = self._values()
        return _dump({**values, "sha256": _hash(values)})

    @property
    def sha256(self) -> str:
        """The hash that identifies a bundle, including the hashes of all files."""
        return _hash(self._values())

    def _values(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        if self.prompts is None:  # as bundles were written before prompts were recorded
            del values["prompts"]
        return values


def read_contract(bundle: str | Path) -> Contract:
    """Read and check a bundle: version, contract, presence and hash of every file.

    Raises:
        MirasolError: no such bundle, another version, or a file that is missing or damaged; the message names it.
    """
    bundle = Path(bundle)
    path = bundle / CONTRACT_FILE
    if not path.is_file():
        raise MirasolError(f"{bundle} is not a bundle: {_lack(bundle)}")
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MirasolError(f"{path} is damaged: {error}. Copy or export the bundle again") from None
    version = values.get("version") if isinstance(values, dict) else None
    if version != CONTRACT_VERSION:
        raise MirasolError(
            f"{path}: contract version {version!r}, but this mirasol reads version {CONTRACT_VERSION}. "
            "Export the bundle again, or install the mirasol that wrote it"
        )
    stated = values.pop("sha256", None)
    if stated != _hash(values) or text != _dump({**values, "sha256": stated}):
        raise MirasolError(f"{path} is damaged: its sha256 does not match its content. Copy or export the bundle again")
    try:
        contract: Contract = _build(Contract, values, "contract")
    except ValueError as error:
        raise MirasolError(f"{path}: {error}. Export the bundle again") from None
    _check_consistency(contract, path)
    _check_files(contract, bundle)
    return contract


def _lack(bundle: Path) -> str:
    """The reason why a folder is not a bundle, and the remedy."""
    if (bundle.parent / CONTRACT_FILE).is_file():
        known: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads((bundle.parent / NOT_SHIPPED).read_text(encoding="utf-8"))
        why = known.get(bundle.name, "it is not in export.precisions of the params file")
        return f"{bundle.name} was not shipped: {why}. {bundle.parent} itself is the bundle in float32"
    state = (
        f"it holds no {CONTRACT_FILE}" if bundle.is_dir() else "it is a file" if bundle.exists() else "no such folder"
    )
    small = Path(__file__).parents[1] / "try"
    shipped = f", a small one is {small}" if (small / CONTRACT_FILE).is_file() else ""
    return f"{state}. `make demo` trains one{shipped}: name yours with --bundle"


def _check_consistency(contract: Contract, path: Path) -> None:
    def refuse(problem: str) -> typing.NoReturn:
        raise MirasolError(f"{path}: {problem}. Export the bundle again")

    if set(contract.graphs) != set(GRAPHS):
        refuse(f"graphs are {sorted(contract.graphs)}, expected {sorted(GRAPHS)}")
    if contract.opsets.get(str(contract.opset)) != {name: graph.file for name, graph in contract.graphs.items()}:
        refuse(f"opsets does not give the files of the graphs for opset {contract.opset}")
    for opset, files in contract.opsets.items():
        if set(files) != set(GRAPHS):
            refuse(f"opset {opset} has the graphs {sorted(files)}, expected {sorted(GRAPHS)}")
    listed = {contract.tokenizer.file, contract.golden.file, contract.licence}
    listed |= {file for files in contract.opsets.values() for file in files.values()}
    if not listed <= set(contract.files):
        refuse(f"files without a hash: {sorted(listed - set(contract.files))}")
    if len(contract.prompts or ()) > MOST_PROMPTS:
        refuse(f"{len(contract.prompts or ())} prompts, at most {MOST_PROMPTS} are allowed")
    for name in contract.files:
        if Path(name).name != name or name == CONTRACT_FILE:
            refuse(f"{name!r} is not a plain file name")
    for name, graph in contract.graphs.items():
        inputs = {tensor.name: tensor for tensor in graph.inputs}
        outputs = {tensor.name: tensor for tensor in graph.outputs}
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.dtype not in DTYPES or tensor.role not in ROLES:
                refuse(f"{name}: {tensor.name} has dtype {tensor.dtype!r} and role {tensor.role!r}")
            if not tensor.shape or tensor.shape[0] != 1 or min(tensor.shape) < 1:
                refuse(f"{name}: {tensor.name} has shape {tensor.shape}, expected fixed dimensions and a batch of 1")
        for state in graph.states:
            before, after = inputs.get(state.input), outputs.get(state.output)
            if before is None or after is None or (before.shape, before.dtype) != (after.shape, after.dtype):
                refuse(f"{name}: state {state.input} -> {state.output} does not pair an input with an equal output")


def _check_files(contract: Contract, bundle: Path) -> None:
    for name, expected in sorted(contract.files.items()):
        file = bundle / name
        if not file.is_file():
            raise MirasolError(f"{file} is missing from the bundle. Copy or export the bundle again")
        found = sha256_file(file)
        if found != expected:
            raise MirasolError(
                f"{file} is not the file that was exported: sha256 {found[:12]}…, the contract says {expected[:12]}…. "
                "Copy or export the bundle again"
            )


def _dump(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _hash(values: dict[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _build(kind: Any, value: Any, where: str) -> Any:
    """``value`` from JSON as ``kind``, strict about names and types.

    Raises:
        ValueError: a name is missing or unknown, or a type differs; the message gives the dotted path.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        names = {field.name for field in dataclasses.fields(kind)}
        needed = names - ({"prompts"} if kind is Contract else set())
        found = set(value) if isinstance(value, dict) else {repr(value)}
        if not needed <= found <= names:
            raise ValueError(f"{where}: missing {sorted(needed - found)}, unknown {sorted(found - names)}")
        return kind(**{name: _build(hints[name], value[name], f"{where}.{name}") for name in sorted(found)})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {name: _build(arguments[1], item, f"{where}.{name}") for name, item in value.items()}
    if origin is None:
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if type(value) is kind:
            return value
    elif type(None) in arguments:  # X | None
        return None if value is None else _build(arguments[0], value, where)
    raise ValueError(f"{where}: {value!r} is not {kind}")
