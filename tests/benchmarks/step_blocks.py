"""Times blocks of steps inside a gang and in `LocalRun`, in turn, so that what disturbs one disturbs the other.

    python tests/benchmarks/step_blocks.py OUT BLOCKS     # one round; bench_search.py runs several

A gang of one trains the baseline. At each of its reports, while it waits for the search's decision, two processes
without Ray take a block each of the same training; then the gang goes on. The second of the two is the control:
what two equal processes differ by is what this measurement cannot see. All have one thread and the priority of Ray's
workers. A block is the steps between two reports with the short evaluation, without the report itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from search_workload import space, timed_config

from harness.connection import ray_session
from harness.experiment import CssExperiment
from harness.trials import Trial, TrialState, Value
from harness.tuning.config import SearchConfig
from harness.tuning.run import Search, run_search
from trainers.local_run import LocalRun
from trainers.run import Checkpointable, Decision, Run

STEPS = 10
"""Of a block."""
WALL, CPU = "block/wall_s", "block/cpu_s"
PRIORITY = 15
"""`nice` of Ray's workers."""


class Block(NamedTuple):
    """Seconds of one block."""

    wall: float
    cpu: float
    """Of all threads of the process, Ray's own included."""


class StopwatchRun:
    """A Run that adds to each report what passed since the report before returned."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._start()

    def __getattr__(self, name: str) -> Any:
        """Everything but `report` is the run's own."""
        return getattr(self._run, name)

    def report(self, metrics: Mapping[str, float], state: Checkpointable) -> Decision:
        taken = {WALL: time.perf_counter() - self._wall, CPU: time.process_time() - self._cpu}
        decision = self._run.report({**metrics, **taken}, state)
        self._start()
        return decision

    def _start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()


class TimedExperiment(CssExperiment):
    """CSS with a stopwatch around its run."""

    def train(self, overrides: Mapping[str, Value], run: Run) -> str:
        return super().train(overrides, StopwatchRun(run))


class Alone:
    """A process that trains with `LocalRun`, a block a request."""

    def __init__(self, blocks: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--alone", str(blocks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def block(self) -> Block:
        """Let it take a block; return its seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return Block(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def train_alone(blocks: int) -> None:
    """What the process of `Alone` does."""
    import torch

    from trainers.loop import warm_up

    os.nice(PRIORITY - os.nice(0))
    torch.set_num_threads(1)
    measured = TimedExperiment(timed_config(blocks, STEPS), "digits_css")

    def answer(metrics: Mapping[str, float]) -> None:
        print(json.dumps({"wall": metrics[WALL], "cpu": metrics[CPU]}), flush=True)
        sys.stdin.readline()

    warm_up(measured.base, LocalRun())
    sys.stdin.readline()
    measured.train(space().baseline, LocalRun(listener=answer))


class Turns:
    """A TrialObserver that lets the others take their block while the gang waits."""

    def __init__(self, alone: Alone, control: Alone) -> None:
        self._alone, self._control = alone, control
        self.taken: list[dict[str, Block]] = []

    def on_start(self, trial: Trial) -> None:
        """Nothing is timed yet."""

    def on_report(self, trial: Trial) -> None:
        if trial.metrics["finished"]:
            return  # the search may be told of the end at another time than of a report
        in_turn = [("alone", self._alone), ("control", self._control)]
        if len(self.taken) % 2:
            in_turn.reverse()
        self.taken.append(
            {"gang": Block(trial.metrics[WALL], trial.metrics[CPU])} | {name: who.block() for name, who in in_turn}
        )

    def on_end(self, trial: Trial) -> None:
        assert trial.state is TrialState.COMPLETE, trial.error


def take_round(blocks: int) -> list[dict[str, Block]]:
    """One gang and two processes, `blocks` turns; the first turn is left out."""
    alone, control = Alone(blocks + 2), Alone(blocks + 2)
    turns = Turns(alone, control)
    try:
        with tempfile.TemporaryDirectory() as folder, ray_session("local", cpus=1):
            experiment = TimedExperiment(timed_config(blocks + 2, STEPS), "digits_css")
            config = SearchConfig.of(trials=1, scheduler="none")
            run_search(Search(Path(folder) / "steps", experiment, space(), config, observers=[turns]))
    finally:
        alone.close()
        control.close()
    return turns.taken[1:]


def main(arguments: list[str]) -> None:
    """Take a round and write it down, or be one of its processes."""
    if arguments[0] == "--alone":
        train_alone(int(arguments[1]))
        return
    taken: list[dict[str, Any]] = [
        {name: block._asdict() for name, block in turn.items()} for turn in take_round(int(arguments[1]))
    ]
    Path(arguments[0]).write_text(json.dumps(taken), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
