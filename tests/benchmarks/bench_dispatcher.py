"""What the Dispatcher costs with many gangs: asyncio alone, without Ray.

    python tests/benchmarks/bench_dispatcher.py
    python tests/benchmarks/bench_dispatcher.py --gangs 512 --seconds 30 --json

Gangs report at a stated pace, each at its own moments; the search decides at once. A trial has 20 reports of 12
metrics. Then the gangs report as fast as they are answered.

    p50_ms, p99_ms     from a gang's report to its decision, at the pace
    reports_per_s      as fast as they are answered
    cpu_share          of one processor, at the pace
    kib_per_gang       memory of the process at the end, less that at the start

What Ray adds, about a millisecond a call, is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from itertools import count
from typing import NamedTuple

import psutil

from harness.gangs.dispatcher import Dispatcher
from harness.gangs.messages import Job

REPORTS, METRICS = 20, 12


class Figures(NamedTuple):
    """Of one number of gangs."""

    gangs: int
    p50_ms: float
    p99_ms: float
    cpu_share: float
    reports_per_s: float
    kib_per_gang: float


class Play:
    """A search of gangs that report every `pause_s` seconds, until it is told to stop."""

    def __init__(self, gangs: int, pause_s: float) -> None:
        self.dispatcher, self.gangs, self.pause_s = Dispatcher(), gangs, pause_s
        self.latencies: list[float] = []
        self.over = False
        self._numbers = count()

    async def run(self, seconds: float) -> None:
        """Play for so long."""
        parties = [self._gang(gang) for gang in range(self.gangs)] + [self._search() for _ in range(self.gangs)]
        tasks = [asyncio.ensure_future(party) for party in parties]
        await asyncio.sleep(seconds)
        self.over = True
        await self.dispatcher.abort("over")
        await asyncio.gather(*tasks)

    async def _search(self) -> None:
        """Submit one trial after another, and decide on its reports."""
        while not self.over:
            trial = str(next(self._numbers))
            await self.dispatcher.submit(Job(trial, {"loss.lambda_u": 1.0}, "/nowhere", "hash"))
            while not self.over:
                report = await self.dispatcher.next_report(trial)
                if report.error is not None or report.metrics.get("finished"):
                    break
            await self.dispatcher.drop(trial)

    async def _gang(self, gang: int) -> None:
        """Train: report at random moments, once a pause on average."""
        moments = random.Random(gang)
        await self.dispatcher.introduce(gang, [gang], ["node"])
        await self.dispatcher.start_gang(gang)
        while (job := await self.dispatcher.next_trial(gang)) is not None:
            for step in range(1, REPORTS + 1):
                await asyncio.sleep(self.pause_s * 2 * moments.random())
                metrics = {f"metric-{index}": 0.5 for index in range(METRICS)} | {"step": float(step)}
                begun = time.perf_counter()
                await self.dispatcher.report(gang, job.trial, {**metrics, "finished": float(step == REPORTS)})
                self.latencies.append(time.perf_counter() - begun)
            await self.dispatcher.complete(gang, job.trial, "hash")


def measure(gangs: int, seconds: float, pause_s: float = 1.0) -> Figures:
    """Play at the pace, then without a pause."""
    process = psutil.Process()
    before, cpu = process.memory_info().rss, time.process_time()
    paced = Play(gangs, pause_s)
    asyncio.run(paced.run(seconds))
    cpu = time.process_time() - cpu
    fast = Play(gangs, 0.0)
    asyncio.run(fast.run(seconds / 3))
    held = process.memory_info().rss - before
    taken = sorted(paced.latencies)
    return Figures(
        gangs, 1e3 * taken[len(taken) // 2], 1e3 * taken[int(0.99 * len(taken))], cpu / seconds,
        len(fast.latencies) / (seconds / 3), held / gangs / 1024,
    )  # fmt: skip


def main(words: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gangs", default="8,64,512")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    rows = [measure(int(gangs), options.seconds) for gangs in options.gangs.split(",")]
    if options.json:
        print(json.dumps([row._asdict() for row in rows]))
        return
    print("  ".join(f"{name:>13}" for name in Figures._fields))
    for row in rows:
        print("  ".join(f"{value:13.4g}" for value in row))


if __name__ == "__main__":
    main(sys.argv[1:])
