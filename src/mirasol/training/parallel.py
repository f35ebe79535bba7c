"""How one model is trained by many processes: copies (DDP), or shards (FSDP2). See docs/decisions/0068."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from mirasol.model.layers import Block
from mirasol.model.text import CrossAttention, TextBlock

T = TypeVar("T")


def shard(model: nn.Module, mesh: DeviceMesh, precision: str) -> None:
    """Spread the parameters of ``model`` over the processes of ``mesh`` (FSDP2), in place.

    Process 0 holds the model's values; the others may hold it on the meta device. So a model starts with the same
    values however many processes train it, and needs the memory of a whole one in one process alone. Weights stay in
    fp32; under ``bf16-mixed`` blocks gather them in bf16 on a GPU, and gradients are summed in fp32.

    Args:
        mesh: of one axis, or of two: copies of the shards on the first, the shards on the second (HSDP).
        precision: Lightning's.
    """
    values = None if dist.get_rank() else _values(model)
    model.to("meta")
    # autocast on a CPU cannot normalise with low weights; there a block is gathered as it is kept
    low = precision == "bf16-mixed" and mesh.device_type == "cuda"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for unit in units(model):
        fully_shard(unit, mesh=mesh, mp_policy=policy if low else MixedPrecisionPolicy())
    fully_shard(model, mesh=mesh)  # the rest: embeddings, norms, start vectors, all used outside of blocks
    model.to_empty(device=mesh.device_type if mesh.device_type == "cpu" else torch.cuda.current_device())
    for name, target in _targets(model).items():
        _spread(target, None if values is None else values.pop(name))
    model.call = MethodType(_call, model)  # type: ignore[assignment]
    register_fsdp_forward_method(model, "call")


def units(model: nn.Module) -> Iterator[nn.Module]:
    """The parts that are gathered one at a time, inner ones first.

    A cross-attention's ``kv`` reads the memory before the block's turn, so that it is a separate part.
    """
    for module in model.modules():
        if isinstance(module, CrossAttention):
            yield module.kv
    for module in model.modules():
        if isinstance(module, Block | TextBlock):
            yield module


def _targets(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in _targets(model).items()}


@torch.no_grad()
def _spread(target: Tensor, value: Tensor | None) -> None:
    """Fill ``target``, sharded or whole, with the ``value`` of process 0."""
    local = target.to_local() if isinstance(target, DTensor) else target
    whole = torch.empty(target.shape, dtype=target.dtype, device=local.device)
    if value is not None:
        whole.copy_(value)
    if isinstance(target, DTensor):
        local.copy_(distribute_tensor(whole, target.device_mesh, target.placements).to_local())
    else:
        dist.broadcast(whole, 0)
        target.copy_(whole)


def _call(model: nn.Module, function: Callable[..., T], *arguments: Any) -> T:
    return function(model, *arguments)


def gathered(model: nn.Module, function: Callable[..., T], *arguments: Any) -> T:
    """``function(model, *arguments)`` for a function that calls parts of ``model`` and not its ``forward``.

    Every process of a sharded model has to call it as often as the others.
    """
    if not isinstance(model, FSDPModule):
        return function(model, *arguments)
    call: Any = model.call
    result: T = call(function, *arguments)
    model.reshard()  # without a backward pass the root's weights stay gathered, and would miss their next change
    return result


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is true in any process; all have to ask, and wait for each other."""
    found = torch.tensor(int(flag), device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found)


@contextlib.contextmanager
def last_backward_only(wrapped: nn.Module | None, model: nn.Module, *, last: bool) -> Iterator[None]:
    """Add up gradients without the other processes in all micro-batches of a step but its ``last``.

    Shards are summed within a node each time, since whole gradients would fill the memory that sharding frees; only
    copies of shards (HSDP) wait for the last one. ``wrapped``: ``model`` as its strategy runs it.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(last)
    if isinstance(wrapped, DistributedDataParallel) and not last:
        with wrapped.no_sync():
            yield
    else:
        yield


def clip_gradients(parameters: Iterable[nn.Parameter], bound: float) -> Tensor:
    """Scale the gradients of all processes down to the norm ``bound`` (0: never); their norm before that, 0-dim."""
    learning = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(learning, bound or float("inf")).detach()
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; every process of a sharded one has to ask for it."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(mesh: DeviceMesh) -> tuple[int, int]:
    """Which part of how many this process holds: the last axis of the mesh is that of the shards."""
    return mesh.get_local_rank(mesh.ndim - 1), mesh.size(mesh.ndim - 1)


def rows_of(length: int, mesh: DeviceMesh) -> tuple[int, int]:
    """First row and end of this process' part of ``length`` rows: equal parts, the last ones shorter or empty."""
    number, parts = part_of(mesh)
    each = -(-length // parts)
    return min(length, number * each), min(length, (number + 1) * each)


def local(tensor: Tensor) -> Tensor:
    """This process' rows of a tensor, without its gradient's history."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor, first: int, count: int) -> tuple[Tensor, slice]:
    """Of ``count`` rows from ``first`` on: those that this process holds of ``tensor``, and which they are."""
    low, high = rows_of(tensor.shape[0], tensor.device_mesh) if isinstance(tensor, DTensor) else (0, tensor.shape[0])
    start = min(max(low, first), first + count)
    end = max(start, min(high, first + count))
    return local(tensor)[start - low : end - low], slice(start - first, end - first)


def compile_blocks(model: nn.Module) -> None:
    """Compile each block for the shapes that it meets: equal blocks share their kernels (torch.compile).

    A text's block takes rows of any length, since each batch packs its texts into other ones.
    """
    torch._dynamo.config.recompile_limit = 64  # of one function: blocks of all parts, widths and shapes
    for module in model.modules():
        if isinstance(module, Block | TextBlock):
            block: Any = module
            block.forward = torch.compile(block.forward, dynamic=isinstance(module, TextBlock))
