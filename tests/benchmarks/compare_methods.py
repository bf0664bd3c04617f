"""Compare methods over paired seeds: what is learned from unlabelled images?

    python tests/benchmarks/compare_methods.py digits_supervised digits_css --seeds 0,1,2,3,4 --vary-data
    python tests/benchmarks/compare_methods.py camvid_css --methods all --seeds 0,1,2 --vary-data --out camvid.jsonl

Rows are presets, or one preset as each method of the paper's Table 1 (`trainers.methods`). Every row is trained with
every seed at equal steps; differences are to the first row, seed by seed, with a t-interval of 95 %. With `--vary-data`
the seed draws the data's splits too. Settings are chosen on dev images; `val/miou` is read once, at the end.

One training a core at a time. Outcomes are added to `--out` one by one; started again with the same file, only what is
missing is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

from trainers.config import TrainConfig
from trainers.methods import METHODS, method_settings
from trainers.overrides import apply_overrides, parse_settings
from trainers.presets import load_preset

METRICS = ("dev/miou", "val/miou")


class Row(NamedTuple):
    """What one line of the table trains."""

    preset: str
    method: str | None

    @property
    def label(self) -> str:
        """Name of the line."""
        return self.method or self.preset

    def config(self, seed: int, settings: dict[str, Any], vary_data: bool) -> TrainConfig:
        """Return what is trained with a seed: the preset, the settings, the method, the seed."""
        drawn = {"seed": seed} | ({"data.seed": seed} if vary_data else {})
        return apply_overrides(load_preset(self.preset), {**settings, **method_settings(self.method), **drawn})


def train_once(label: str, seed: int, config: TrainConfig) -> dict[str, Any]:
    """Train one configuration on one thread; return its scores at the end."""
    import torch

    from trainers.data.splits import open_val
    from trainers.evaluate import evaluate
    from trainers.local_run import LocalRun
    from trainers.loop import train

    torch.set_num_threads(1)
    reports: list[dict[str, float]] = []
    started = time.perf_counter()
    run = LocalRun(listener=lambda metrics: reports.append(dict(metrics)))
    state = train(config, run)
    scores = reports[-1] | evaluate(state.teacher, open_val(config.data), config, run, "val")
    return {
        "row": label,
        "seed": seed,
        "config": config.hash,
        "seconds": time.perf_counter() - started,
        "scores": {name: value for name, value in scores.items() if not name.startswith("time/")},
    }


def interval(differences: list[float]) -> tuple[float, float]:
    """Return the t-interval of 95 % of the mean difference."""
    half = stats.t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / len(differences) ** 0.5
    mean = statistics.fmean(differences)
    return mean - half, mean + half


def train_all(
    tasks: dict[tuple[str, int], TrainConfig], out: Path | None, processes: int | None
) -> dict[tuple[str, int], dict[str, Any]]:
    """Train what the file does not hold yet; what was trained with another config does not count."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    if out is not None and out.exists():
        for line in out.read_text(encoding="utf-8").splitlines():
            outcome = json.loads(line)
            key = (outcome["row"], outcome["seed"])
            if key in tasks and outcome["config"] == tasks[key].hash:
                found[key] = outcome
    with ProcessPoolExecutor(processes) as pool:
        missing = [key for key in tasks if key not in found]
        pending = [pool.submit(train_once, *key, tasks[key]) for key in missing]
        for done in as_completed(pending):
            outcome = done.result()
            found[outcome["row"], outcome["seed"]] = outcome
            scores = " ".join(f"{metric} {outcome['scores'][metric]:.4f}" for metric in METRICS)
            print(
                f"[{len(found)}/{len(tasks)}] {outcome['row']} seed {outcome['seed']}: {scores}, "
                f"{outcome['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(outcome) + "\n")
    return found


def summarise(
    labels: list[str], seeds: list[int], found: dict[tuple[str, int], dict[str, Any]], metric: str
) -> list[dict[str, Any]]:
    """Return mean, spread and paired difference to the first row, a row each."""
    rows = []
    for label in labels:
        values = [found[label, seed]["scores"][metric] for seed in seeds]
        row: dict[str, Any] = {"row": label, "metric": metric, "n": len(values), "values": values}
        row["mean"], row["std"] = statistics.fmean(values), statistics.stdev(values)
        row["seconds"] = statistics.median(found[label, seed]["seconds"] for seed in seeds)
        if rows:
            differences = [value - other for value, other in zip(values, rows[0]["values"], strict=True)]
            row["difference"] = statistics.fmean(differences)
            row["ci_low"], row["ci_high"] = interval(differences)
        rows.append(row)
    return rows


def line_of(row: dict[str, Any]) -> str:
    """Return a row as people read it."""
    line = f"{row['row']:20} n={row['n']} {row['metric']} {row['mean']:.3f} +- {row['std']:.3f}  {row['seconds']:.0f} s"
    if "difference" in row:
        line += f"  difference {row['difference']:+.3f} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]"
    return f"{line}  {' '.join(f'{value:.3f}' for value in row['values'])}"


def main() -> int:
    """Train, print a line each and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--methods", help="compare methods on one preset: names with commas, or all")
    parser.add_argument("--seeds", default="0,1,2", help="at least two, with commas")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--vary-data", action="store_true")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="file of outcomes, one a line")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if len(set(seeds)) < 2:
        parser.error("--seeds must be at least two different ones, for an interval")
    if options.methods and len(options.presets) > 1:
        parser.error("--methods compares methods on one preset, got several presets")
    rows = [Row(preset, None) for preset in options.presets]
    if options.methods:
        names = list(METHODS) if options.methods == "all" else options.methods.split(",")
        rows = [Row(options.presets[0], name) for name in names]
    settings = parse_settings(options.settings)
    tasks = {(row.label, seed): row.config(seed, settings, options.vary_data) for seed in seeds for row in rows}
    found = train_all(tasks, options.out, options.processes)
    tables = [summarise([row.label for row in rows], seeds, found, metric) for metric in METRICS]
    if options.json:
        print(json.dumps([row for table in tables for row in table], indent=1))
        return 0
    print("\n\n".join("\n".join(map(line_of, table)) for table in tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())
