"""Compare methods over paired seeds: what is learned from unlabelled images?

    python tests/benchmarks/compare_methods.py digits_supervised digits_css --seeds 0,1,2,3,4 --vary-data

Every method is trained with every seed at equal steps; differences are to the first method, seed by seed, with a
t-interval of 95 %. With `--vary-data` the seed draws the data's splits too. One training a core at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from scipy import stats

from trainers.overrides import apply_overrides, parse_settings
from trainers.presets import load_preset


class Outcome(NamedTuple):
    """The end of one training."""

    preset: str
    seed: int
    miou: float
    seconds: float


def train_once(preset: str, seed: int, settings: dict[str, Any], vary_data: bool) -> Outcome:
    """Train one method with one seed on one thread."""
    import torch

    from trainers.local_run import LocalRun
    from trainers.loop import train

    torch.set_num_threads(1)
    drawn = {"seed": seed} | ({"data.seed": seed} if vary_data else {})
    reports: list[dict[str, float]] = []
    started = time.perf_counter()
    train(apply_overrides(load_preset(preset), settings | drawn), LocalRun(listener=lambda m: reports.append(dict(m))))
    return Outcome(preset, seed, reports[-1]["dev/miou"], time.perf_counter() - started)


def interval(differences: list[float]) -> tuple[float, float]:
    """Return the t-interval of 95 % of the mean difference."""
    half = stats.t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    mean = statistics.fmean(differences)
    return mean - half, mean + half


def main() -> int:
    """Train, print a line each and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--vary-data", action="store_true")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    settings = parse_settings(options.settings)
    with ProcessPoolExecutor(options.processes) as pool:
        tasks = [
            pool.submit(train_once, preset, seed, settings, options.vary_data)
            for seed in seeds
            for preset in options.presets
        ]
        outcomes = [task.result() for task in tasks]
    by_preset = {preset: [o for o in outcomes if o.preset == preset] for preset in options.presets}
    base = [outcome.miou for outcome in by_preset[options.presets[0]]]
    rows = []
    for preset, found in by_preset.items():
        values = [outcome.miou for outcome in found]
        row: dict[str, Any] = {"preset": preset, "n": len(values), "mean": statistics.fmean(values), "values": values}
        row["std"] = statistics.stdev(values)
        row["seconds"] = statistics.median(outcome.seconds for outcome in found)
        if preset != options.presets[0]:
            differences = [value - other for value, other in zip(values, base, strict=True)]
            row["difference"] = statistics.fmean(differences)
            row["ci_low"], row["ci_high"] = interval(differences)
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        line = f"{row['preset']:20} n={row['n']} dev/miou {row['mean']:.3f} +- {row['std']:.3f}  {row['seconds']:.0f} s"
        if "difference" in row:
            line += f"  difference {row['difference']:+.3f} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]"
        print(line, " ".join(f"{value:.3f}" for value in row["values"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
