"""Twenty random faults of one seed: the run ends with the curves of an undisturbed one, or names the cause."""

from __future__ import annotations

import pytest
from support.faults import Trial, drawn, possible
from support.slurm import Slurm

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ROUNDS = drawn(seed=20, count=20, kinds=possible())


@pytest.fixture(scope="module")
def trial(slurm: Slurm, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial(slurm, environment, tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("number", range(20), ids=[f"{one.fault} {one.step}" for one in ROUNDS])
def test_a_run_goes_on_or_names_the_cause(trial: Trial, number: int) -> None:
    done = trial.run(number, ROUNDS[number])
    assert done.survived, done
