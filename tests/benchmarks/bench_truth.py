"""Does telling Optuna the truth find better configurations? The truthful searcher against Ray's own OptunaSearch.

    python tests/benchmarks/bench_truth.py                       # all objectives, 20 seeds
    python tests/benchmarks/bench_truth.py --objectives edge pit --seeds 50 --json

TPE with ASHA (Ray's own, rungs 3, 9, 27, 81) and 4 virtual workers on the objectives of `truth_objectives.py`, which
says what was expected before anything was run. Both searchers have the same seeds, first trial, noise and budget:
the steps of `--horizons` full trials. Differences are stock minus truthful, seed by seed, with a t-interval of 95 %:
above zero, the truth is better.

    trained_regret   optimum minus the noise-free final value of the best trial that reached the horizon
    told_regret      of the study's best trial: with stock that may be one that was stopped early
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import optuna
from truth_objectives import OBJECTIVES
from truth_simulation import SEARCHERS, Outcome, Scored, simulate

from harness.statistics.intervals import t_interval

MARKS = (0.25, 0.5, 1.0)
"""Shares of the budget at which is scored."""
Pair = dict[str, Outcome]


def run_pair(name: str, seed: int, horizons: float) -> Pair:
    """Search with both on one objective and seed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # stock's warning for each value that is not a number
    warnings.filterwarnings("ignore", module="optuna")
    return {
        searcher: simulate(*make(seed), OBJECTIVES[name], seed, horizons, MARKS) for searcher, make in SEARCHERS.items()
    }


def compare(stock: Sequence[float], truthful: Sequence[float]) -> dict[str, Any]:
    """Return means, the mean of the paired differences stock - truthful and its t-interval of 95 %."""
    differences = [theirs - ours for theirs, ours in zip(stock, truthful, strict=True)]
    difference = t_interval(differences)
    return {
        "stock": statistics.fmean(stock),
        "truthful": statistics.fmean(truthful),
        "difference": difference.mean,
        "interval": [difference.low, difference.high],
        "truthful_better_in": sum(difference > 0 for difference in differences),
        "equal_in": sum(difference == 0 for difference in differences),
    }


def summarise(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return everything about one objective."""
    by_budget = {
        f"{field}_at_{mark:g}": compare(
            *([getattr(pair[searcher].scores[mark], field) for pair in pairs] for searcher in ("stock", "truthful"))
        )
        for field in Scored._fields
        for mark in MARKS
    }
    counts = {
        searcher: {
            field: statistics.fmean(getattr(pair[searcher], field) for pair in pairs)
            for field in Outcome._fields
            if field != "scores"
        }
        for searcher in SEARCHERS
    }
    return {**by_budget, "mean_counts": counts}


def print_table(figures: dict[str, Any]) -> None:
    """One line an objective, regret and budget; then what the studies hold."""
    print(f"{'objective':10} {'regret of':8} {'budget':>6} {'stock':>8} {'truthful':>8} {'difference':>10}  95 %")
    for name, one in figures["objectives"].items():
        for field, label in (("trained_regret", "trained"), ("told_regret", "told")):
            for mark in MARKS:
                row = one[f"{field}_at_{mark:g}"]
                low, high = row["interval"]
                print(
                    f"{name:10} {label:8} {mark:7.0%} {row['stock']:8.4f} {row['truthful']:8.4f} "
                    f"{row['difference']:+10.4f}  [{low:+.4f}, {high:+.4f}]  better in {row['truthful_better_in']}, "
                    f"equal in {row['equal_in']} of {figures['seeds']}"
                )
    print()
    for name, one in figures["objectives"].items():
        for searcher, counts in one["mean_counts"].items():
            told = ", ".join(f"{value:.1f} {field.replace('_', ' ')}" for field, value in counts.items())
            print(f"{name:10} {searcher:8} {told}")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--horizons", type=float, default=40, help="budget, in full trials")
    parser.add_argument("--objectives", nargs="+", choices=tuple(OBJECTIVES), default=tuple(OBJECTIVES))
    parser.add_argument("--jobs", type=int, default=1, help="processes; changes no figure")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error(f"--seeds must be at least 2 for an interval, got {options.seeds}")
    figures: dict[str, Any] = {"seeds": options.seeds, "horizons": options.horizons, "objectives": {}}
    with ProcessPoolExecutor(options.jobs) as pool:
        for name in options.objectives:
            began = time.monotonic()
            seeds = range(options.seeds)
            pairs = list(pool.map(run_pair, [name] * len(seeds), seeds, [options.horizons] * len(seeds)))
            figures["objectives"][name] = summarise(pairs)
            print(f"{name}: {options.seeds} pairs in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(figures))
    else:
        print_table(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
