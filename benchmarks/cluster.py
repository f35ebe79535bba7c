"""Training on several processes and nodes: faults that it survives, how fast it stops, what a save holds up.

    mirasol bench cluster [--only CLAIM ...] [--json FILE] [--rounds 20] [--quick]

`faults_survived` is the share of random faults (their number is --rounds) after which a training on a Slurm of two
nodes ends with the curves of an undisturbed one, or with an error that names the cause; `sigterm_seconds` and
`steps_lost` are the worst of all SIGTERMs; `resharded_difference` is the largest difference of a curve after a resume
by another number of processes; `async_save_blocking` is the time for which an asynchronous save holds up the steps, as
a share of a synchronous one; `cancel_seconds` is the time from a cancelled deployment to an empty queue.

A claim that cannot be measured here, for lack of Slurm say, is left out, with the reason. The interval is that of a
share (Wilson) or of a median over rounds (bootstrap); the worst of all rounds has none. All rounds are in the file.
"""

from __future__ import annotations

import importlib
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import arguments, exact, report, rounded, share

ROOT = Path(__file__).parents[1]
SLURM = ("faults_survived", "cancel_seconds")  # claims that need it
WORST = ("sigterm_seconds", "steps_lost", "resharded_difference", "cancel_seconds")
Z = 1.96  # of a 95 % interval


def _of(module: str, function: str, *given: Any) -> dict[str, Any]:
    """The figures of a function of another file here, imported only when asked for: some need the tests' Slurm."""
    found: dict[str, Any] = getattr(importlib.import_module(module), function)(*given)
    return found


def measures(count: int) -> dict[tuple[str, ...], Callable[[], dict[str, dict[str, Any]]]]:
    """What measures the claims of a name, claim -> {value, rounds}."""
    return {
        ("faults_survived",): lambda: {"faults_survived": _of("cluster_faults", "faults_survived", count)},
        ("sigterm_seconds", "steps_lost"): lambda: _of("cluster_faults", "sigterm"),
        ("resharded_difference",): lambda: {"resharded_difference": _of("cluster_saves", "resharded_difference")},
        ("async_save_blocking",): lambda: {"async_save_blocking": _of("cluster_saves", "async_save_blocking")},
        ("cancel_seconds",): lambda: {"cancel_seconds": _of("cluster_cancel", "cancel_seconds")},
    }


CLAIMS = tuple(claim for claims in measures(0) for claim in claims)


def interval(claim: str, found: dict[str, Any]) -> dict[str, Any]:
    """Value, 95 % interval and number of rounds of a claim."""
    rounds = found["rounds"] if "rounds" in found else found["each"]
    value, count = float(found["value"]), len(rounds)
    if claim == "faults_survived":
        low, high = wilson(value, count)
        return {"value": rounded(value), "ci95": [rounded(low), rounded(high)], "rounds": count}
    if claim in WORST or not all(isinstance(one, int | float) for one in rounds):
        return exact(value) | {"rounds": count}
    return share(rounds)


def wilson(value: float, count: int) -> tuple[float, float]:
    """The interval of a share ``value`` of ``count``: of 20 of 20 it is not empty."""
    middle = (value + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(value * (1 - value) / count + Z**2 / (4 * count**2))
    return min(value, middle - half), max(value, middle + half)


def missing_slurm() -> str:
    """Why no Slurm can be started here; empty if one can."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        from support.slurm import missing
    except ImportError as error:
        return f"needs the tests of the source tree: {error}"
    return str(missing())


def measured(wanted: set[str], count: int) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Each wanted claim with its figures, or with the reason why it is left out: a need, or after FAILED a fault."""
    for claims, measure in measures(count).items():
        chosen = [claim for claim in claims if claim in wanted]
        if not chosen:
            continue
        if set(claims) & set(SLURM) and (why := missing_slurm()):
            yield from ((claim, why) for claim in chosen)
            continue
        try:
            found = measure()
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            yield from ((claim, f"FAILED: {error!r}") for claim in chosen)
        else:
            yield from ((claim, found[claim]) for claim in chosen)


def main() -> None:
    """Measure, print, and write the figures where ``--json`` says; exit with 1 if a measurement fails."""
    parser = arguments(__doc__, rounds=20)
    parser.add_argument("--only", nargs="+", choices=CLAIMS, metavar="CLAIM", help=f"of {', '.join(CLAIMS)}")
    options = parser.parse_args()
    ratios: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for claim, found in measured(set(options.only or CLAIMS), 2 if options.quick else options.rounds):
        if isinstance(found, str):
            left_out[claim] = found
            print(f"{claim} is left out: {found}", flush=True)
        else:
            ratios[claim], figures[claim] = interval(claim, found), found
    report("cluster", options.json, ratios, figures | {"left_out": left_out})
    sys.exit(any(reason.startswith("FAILED") for reason in left_out.values()))


if __name__ == "__main__":
    main()
