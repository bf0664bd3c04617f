"""CPU time of a start: what `s4 tune` takes on two gangs until the first report, process by process.

    python tests/benchmarks/bench_start.py [--repeats N]

Seconds of CPU depend on what else a machine does far less than seconds do; `s4 tune --profile-start` shows the latter.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import psutil

REPORT = 50
COMMAND = [sys.executable, "-m", "harness.cli.main", "tune", "--trials", "2", "--gangs", "2", "--name", "start"]
PROGRAMS = ("log_monitor", "monitor", "dashboard", "gcs_server", "raylet")
PATIENCE_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    starts = [measure() for _ in range(parser.parse_args().repeats)]
    print(f"CPU seconds from the command to the first report at step {REPORT}, median of {len(starts)}")
    for name in sorted({*starts[0]}, key=lambda name: -starts[0][name]):
        print(f"{median(start[name] for start in starts):7.2f}  {name}")
    print(f"{median(start.total() for start in starts):7.2f}  all")


def measure() -> Counter[str]:
    """Return the CPU seconds of each kind of process in one start."""
    with tempfile.TemporaryDirectory(prefix="s4-start-") as folder:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        driver = subprocess.Popen(COMMAND, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        seen: dict[int, tuple[str, float]] = {}
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not reported(Path(folder, "runs", "start", "trials.jsonl")):
                if driver.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("there was no report")
                look(driver.pid, seen)
                time.sleep(0.2)
            look(driver.pid, seen)
        finally:
            driver.send_signal(signal.SIGTERM)
            driver.wait()
    spent = Counter[str]()
    for name, seconds in seen.values():
        spent[name] += seconds
    return spent


def reported(ledger: Path) -> bool:
    """Return whether a trial has reported."""
    lines = ledger.read_bytes().splitlines() if ledger.exists() else []
    return any(json.loads(line)["event"] == "report" for line in lines[:-1] if line.strip())


def look(driver: int, seen: dict[int, tuple[str, float]]) -> None:
    """Note what the driver and its descendants have taken so far."""
    for process in (psutil.Process(driver), *psutil.Process(driver).children(recursive=True)):
        try:
            times = process.cpu_times()
            seen[process.pid] = name_of(process, driver), times.user + times.system
        except psutil.Error:  # it has ended
            continue


def name_of(process: psutil.Process, driver: int) -> str:
    """Return what a process is, for people."""
    if process.pid == driver:
        return "driver"
    words = " ".join(process.cmdline())
    if words.startswith("ray::"):
        return words.removeprefix("ray::").split()[0]
    return next((name for name in PROGRAMS if f"{name}.py" in words or f"/{name} " in f"{words} "), "others")


if __name__ == "__main__":
    main()
