"""An elastic training that loses a host and gets one back, against a fixed one: the same curves, or not?

    python tests/benchmarks/bench_elastic.py [--steps 400] [--figure FILE.png] [--json]

Needs root: the hosts are network namespaces (tests/cluster/hosts.py). The elastic training starts on two hosts, goes on
on one from a third of the way, and on two again from two thirds on. Global batch, learning rate, sampler and seeds do
not depend on the number of workers; random draws follow the ranks, and BatchNorm normalises by a rank's own share.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "cluster"))

from commands import Command, settings, start  # noqa: E402
from hosts import hosts, missing, wait_for  # noqa: E402

EVERY = 10
METRICS = ("train/loss/total", "dev/miou")


def curves(training: Command) -> dict[int, Mapping[str, float]]:
    """Return what was reported, by step."""
    reports = [event["metrics"] for event in training.events() if event["event"] == "report"]
    return {int(report["step"]): report for report in reports}


def take(folder: Path, steps: int) -> dict[str, dict[int, Mapping[str, float]]]:
    """Train fixed and elastic; return the curves of both."""
    options = settings(schedule__steps=steps, schedule__evaluate_every=EVERY)
    with hosts(folder / "hosts", [1, 1]) as cluster:
        cluster.start()
        fixed = start(cluster.head, cluster, "train", "fixed", folder / "runs", ["--workers", "2", *options])
        fixed.wait(1200)
        elastic = start(cluster.head, cluster, "train", "elastic", folder / "runs", ["--workers", "1:2", *options])
        elastic.wait_for_reports(steps // EVERY // 3, 1200)
        cluster[1].kill()
        elastic.wait_for_reports(2 * steps // EVERY // 3, 1200)
        cluster[1].boot()
        cluster.join(cluster[1])
        sent = cluster[1].sent_bytes()
        wait_for(lambda: elastic.process.poll() is not None or cluster[1].sent_bytes() - sent > 2e7, "two workers", 600)
        elastic.wait(1200)
        return {"fixed": curves(fixed), "elastic": curves(elastic)}


def figures(taken: Mapping[str, Mapping[int, Mapping[str, float]]]) -> dict[str, Any]:
    """Return the greatest and the last difference of each metric."""
    fixed, elastic = taken["fixed"], taken["elastic"]
    assert fixed.keys() == elastic.keys(), "a report is missing"
    found: dict[str, Any] = {"reports": len(fixed)}
    for metric in METRICS:
        apart = [abs(fixed[step][metric] - elastic[step][metric]) for step in sorted(fixed)]
        found[metric] = {
            "greatest_difference": max(apart),
            "last_difference": apart[-1],
            "last_fixed": fixed[max(fixed)][metric],
            "reports_that_differ": sum(gap > 0 for gap in apart),
        }
    return found


def draw(taken: Mapping[str, Mapping[int, Mapping[str, float]]], path: Path) -> None:
    """Draw both curves of each metric."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for place, metric in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        for name, style in (("fixed", {"lw": 3.0, "alpha": 0.4}), ("elastic", {"lw": 1.2, "ls": "--"})):
            steps = sorted(taken[name])
            place.plot(steps, [taken[name][step][metric] for step in steps], label=name, **style)
        last = max(taken["fixed"])
        for at, words in ((last / 3, "host killed"), (2 * last / 3, "host back")):
            place.axvline(at, color="grey", lw=0.8, ls=":")
            place.annotate(
                words, (at, 1), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right", fontsize=8
            )
        place.set_xlabel("step")
        place.set_title(metric)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> int:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    reason = missing()
    if reason is not None:
        parser.error(reason)
    with tempfile.TemporaryDirectory() as folder:
        taken = take(Path(folder), options.steps)
    if options.figure:
        draw(taken, options.figure)
    found = figures(taken)
    print(json.dumps(found) if options.json else json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
