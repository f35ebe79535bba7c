"""Lightning's strategies by the settings: one process, copies (DDP), shards (FSDP2), copies of shards (HSDP)."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mirasol.training.checkpoint import read_checkpoint, write_sharded
from mirasol.training.config import PhaseRun
from mirasol.training.saving import Saving
from mirasol.training.shards import new_folder, part_of_shards, put_shards, take_shards


def is_leader() -> bool:
    """Whether this is the first process of all; known before Lightning starts the others."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with HSDP and with checkpoints that are written whole or not at all.

    ``nodes`` above 1: each node holds all shards, and the nodes hold copies of them.
    """

    def __init__(self, processes: int, nodes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1)
        self.copies = nodes
        self.mesh: DeviceMesh | None = None  # of one axis, or copies and shards

    def setup_environment(self) -> None:
        super().setup_environment()
        kind, copies = self.root_device.type, self.copies
        shape = (copies, self.world_size // copies) if copies > 1 else (self.world_size,)
        names = ("copies", "shards")[-len(shape) :]
        self.mesh = init_device_mesh(kind, shape, mesh_dim_names=names)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        Strategy.load_model_state_dict(self, checkpoint, strict)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return Strategy.optimizer_state(self, optimizer)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        Strategy.load_optimizer_state_dict(self, checkpoint)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Saving | None = None
    ) -> None:
        """Write the rows of all processes, then the file that names them; afterwards the rows from before go.

        ``storage_options`` does so beside the next steps; it must be given.
        """
        assert storage_options is not None
        path, leader, saving = Path(filepath), self.is_global_zero, storage_options
        folder = self.broadcast(new_folder(path) if leader else "")
        shards: dict[str, Any] = {}
        rest = take_shards(checkpoint, shards)
        part = part_of_shards(shards)

        def write(copied: dict[str, Any]) -> None:
            mine = None if part is None else dataclasses.replace(part, rows=copied["rows"])
            write_sharded(path, copied["rest"], mine, folder, saving.meet)

        saving.begin({"rest": rest if leader else {}, "rows": part.rows if part else {}}, write)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = True) -> dict[str, Any]:
        """The checkpoint of any strategy and number of processes; each process reads its own rows."""
        path, sharded = Path(checkpoint_path), self._parameters()
        return put_shards(
            read_checkpoint(path), path, lambda name: sharded.get(name, sharded.get(name.rpartition("/")[0]))
        )

    def _parameters(self) -> dict[str, Tensor]:
        """The parameter that each tensor of a checkpoint goes with, by its name there."""
        assert self.lightning_module is not None
        parameters = dict(self.lightning_module.named_parameters())
        found: dict[str, Tensor] = {f"state_dict/{name}": p for name, p in parameters.items()}
        found |= {f"ema/{name}": p for name, p in parameters.items()}
        for number, optimizer in enumerate(self.optimizers):
            members = [p for group in optimizer.param_groups for p in group["params"]]
            found |= {f"optimizer_states/{number}/state/{key}": p for key, p in enumerate(members)}
        return found


def limit_waits(strategy: Strategy, seconds: float) -> None:
    """Let collectives of ``strategy`` fail after ``seconds``; before it meets the other processes."""
    if isinstance(strategy, DDPStrategy | ModelParallelStrategy):
        strategy._timeout = datetime.timedelta(seconds=seconds)


def build_strategy(run: PhaseRun) -> Strategy | str:
    """The strategy that ``training.sharding`` names, for Lightning's trainer."""
    processes = run.processes
    if run.training.sharding == "none":
        single = 1 in (run.clip.chunks, run.config.chunks)  # TTM's Write serves the next chunk
        several = processes.count > 1
        return DDPStrategy(find_unused_parameters=single, gradient_as_bucket_view=True) if several else "auto"
    return ShardedStrategy(processes.count, processes.nodes if run.training.sharding == "hybrid" else 1)
