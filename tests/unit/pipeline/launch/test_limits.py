"""A level waits longer than the one below needs."""

from __future__ import annotations

from mirasol.pipeline.launch.limits import CANCELS, ENDS, GRACE, SAVES, SRUN


def test_the_guard_of_a_job_is_done_before_the_driver_is_killed() -> None:
    answers = 1.0  # seconds of Slurm, before and after
    assert SAVES + 2 * answers < CANCELS < GRACE


def test_an_agent_ends_its_processes_before_srun_ends_the_agent() -> None:
    assert ENDS < SRUN
