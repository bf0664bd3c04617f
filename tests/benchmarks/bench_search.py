"""This search against the pattern of Ray's documentation, with the same trainer on the same two cores.

    python tests/benchmarks/bench_search.py                          # 32 trials here, 8 of the pattern, extrapolated
    python tests/benchmarks/bench_search.py --stock-trials 32 --json # nothing extrapolated; over 10 minutes longer

Both search `search_space.yaml` around a short `digits_css` with TPE and ASHA, same seed, two trials at a time, a worker
and a thread each, one search after the other, each in its own Ray session. See `search_stock.py` for the pattern.

    trials_per_hour_ratio    ours / the pattern's, start of the process to the search's return, for the same number of
                             trials; `stock_trials_measured` of the pattern's were run, the rest is extrapolated from
                             its own seconds of a pruned and a complete trial; at least 8
    steady_ratio             the same once both searches run
    pruned_trial_s, stock_pruned_trial_s
                             seconds that a pruned trial keeps one of the two places, up to its successor's start
    start_s                  a trial's submission to the end of its first step, median, of ours
    setup_s, stock_setup_s   the process's start to the first report
    step_ratio               median over pairs of blocks: a step inside a gang / in LocalRun, by the wall; at most 1.01
    step_control_ratio       the same of two LocalRuns: what the measurement cannot see
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from marked_processes import Marked, marked
from scipy import stats
from search_timeline import Side, read_events, spans, steady_trials_per_hour, wall_for
from search_workload import HORIZON, PLACES

HERE = Path(__file__).parent
CLOSING_S = 30.0
"""How long a search's process may take to shut Ray down."""
Figures = dict[str, Any]


def run_side(script: str, trials: int, limit_s: float, stall_s: float) -> tuple[Side, list[dict[str, Any]]]:
    """Run one search to its end, to `limit_s`, or until nothing has happened for `stall_s`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events = folder / "events.jsonl"
        began = time.time()
        with (folder / "log").open("w") as log, marked(HERE / script, name, str(trials), log=log) as running:
            cut_short = not _ends_in_time(running, events, began, limit_s, stall_s)
            noted = read_events(events)
            left = running.end()
        if cut_short or not any(event["event"] == "done" for event in noted):
            print((folder / "log").read_text(errors="replace")[-3000:], file=sys.stderr)
    done = spans(noted, PLACES, HORIZON)
    if not done:
        raise SystemExit(f"{script}: no trial ended; its last words are above")
    over = [event["time"] for event in noted if event["event"] == "done"]
    took = time.time() - began
    print(f"{script}: {len(done)} of {trials} trials, {left} processes left, {took:.0f} s", file=sys.stderr, flush=True)
    return Side(
        trials=trials,
        spans=done,
        wall_s=(over[0] if over else done[-1].end) - began,
        setup_s=min(event["time"] for event in noted if event["event"] == "report") - began,
        cut_short=not over,
        processes_left=left,
    ), noted


def _ends_in_time(running: Marked, events: Path, began: float, limit_s: float, stall_s: float) -> bool:
    """Wait for the process, and where it hangs after the search's return, no longer than `CLOSING_S`."""
    done_at: float | None = None
    while running.process.poll() is None:
        time.sleep(0.2)
        now = time.time()
        if done_at is not None:
            if now - done_at > CLOSING_S:
                return True
            continue
        noted = read_events(events)
        done_at = next((event["time"] for event in noted if event["event"] == "done"), None)
        last = noted[-1]["time"] if noted else began
        if now - began > limit_s or now - last > stall_s:
            return False
    return True


def search_figures(options: argparse.Namespace) -> Figures:
    """Both searches and their ratios."""
    warm, events = run_side("search_warm.py", options.trials, options.limit_s, options.stall_s)
    stock, _ = run_side("search_stock.py", options.stock_trials, options.limit_s, options.stall_s)
    try:
        stock_wall = wall_for(stock, warm, PLACES)
    except ValueError as error:
        raise SystemExit(f"search_stock.py: {error}") from error
    ours, theirs = steady_trials_per_hour(warm, PLACES), steady_trials_per_hour(stock, PLACES)
    reports = [event for event in events if event["event"] == "report"]
    return {
        "trials_per_hour_ratio": stock_wall / warm.wall_s,
        "steady_ratio": ours / theirs if ours and theirs else None,
        "trials_per_hour": 3600 * len(warm.spans) / warm.wall_s,
        "stock_trials_per_hour": 3600 * len(warm.spans) / stock_wall,
        "stock_trials_measured": len(stock.spans),
        "stock_extrapolated": len(stock.spans) < len(warm.spans),
        "start_s": _median([event["overhead/start_s"] for event in reports if "overhead/start_s" in event][PLACES:]),
        "report_s": _median([event["overhead/report_s"] for event in reports if "overhead/report_s" in event]),
        **_of_side("", warm),
        **_of_side("stock_", stock),
    }


def _of_side(prefix: str, side: Side) -> Figures:
    figures: Figures = {
        "pruned_trial_s": _median(side.held("pruned")),
        "complete_trial_s": _median(side.held("complete")),
        "setup_s": side.setup_s,
        "wall_s": side.wall_s,
        "pruned": side.count("pruned"),
        "complete": side.count("complete"),
        "failed": side.count("failed"),
        "steps": sum(span.steps for span in side.spans),
        "cut_short": side.cut_short,
        "processes_left": side.processes_left,
    }
    return {prefix + name: value for name, value in figures.items()}


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def step_figures(rounds: int, blocks: int) -> Figures:
    """Steps inside gangs to steps without, over rounds of fresh processes."""
    taken: list[list[dict[str, dict[str, float]]]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name, (Path(name) / "log").open("w") as log:
            out = Path(name) / "blocks.json"
            with marked(HERE / "step_blocks.py", str(out), str(blocks), log=log) as running:
                running.process.wait()
            if not out.exists():
                print((Path(name) / "log").read_text(errors="replace")[-3000:], file=sys.stderr)
                raise SystemExit("step_blocks.py failed; its last words are above")
            taken.append(json.loads(out.read_text()))
    figures: Figures = {"step_rounds": rounds, "step_pairs": sum(map(len, taken))}
    for name, which, clock in (
        ("step_ratio", "gang", "wall"),
        ("step_cpu_ratio", "gang", "cpu"),
        ("step_control_ratio", "control", "wall"),
        ("step_control_cpu_ratio", "control", "cpu"),
    ):
        by_round = [[turn[which][clock] / turn["alone"][clock] for turn in one] for one in taken]
        ratios = [ratio for one in by_round for ratio in one]
        figures |= {
            name: statistics.median(ratios),
            f"{name}_interval": median_interval(ratios),
            f"{name}_by_round": [statistics.median(one) for one in by_round],
        }
    return figures


def median_interval(values: list[float]) -> list[float]:
    """At least 95 % for the median, from the order of the values alone; their range where they are too few."""
    ordered = sorted(values)
    skip = max(int(stats.binom.ppf(0.025, len(ordered), 0.5)) - 1, 0)
    return [ordered[skip], ordered[-1 - skip]]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--stock-trials", type=int, default=8, help="of the pattern; some 25 s each")
    parser.add_argument("--limit-s", type=float, default=1800, help="of one search")
    parser.add_argument("--stall-s", type=float, default=150, help="a search without any event for so long has hung")
    parser.add_argument("--step-rounds", type=int, default=4, help="fresh gangs and processes; 0: steps are not timed")
    parser.add_argument("--step-blocks", type=int, default=30, help="of ten steps, a round")
    options = parser.parse_args(arguments)
    least = 3 * PLACES  # some trials then run between others: not waiting for the start, nor without a successor
    if options.trials and not least <= options.stock_trials <= options.trials:
        parser.error(f"--stock-trials must be from {least} to --trials ({options.trials}), got {options.stock_trials}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended on the way out
    figures: Figures = {"load_at_start": os.getloadavg()[0]}
    if options.trials:
        figures |= search_figures(options)
    if options.step_rounds:
        figures |= step_figures(options.step_rounds, options.step_blocks)
    figures["load_at_end"] = os.getloadavg()[0]
    if options.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:32} {f'{value:.4g}' if isinstance(value, float) else value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
