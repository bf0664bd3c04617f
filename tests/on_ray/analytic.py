"""A stand-in for training: a closed form of the overrides and the step, that misbehaves on demand.

A module of its own, because workers import it.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from harness.cluster import Allocation
from harness.gangs import worker
from harness.trials import Experiment, SearchSpace, Trial, TrialObserver, Value
from harness.tuning.config import SearchConfig
from harness.tuning.run import Search, SearchEnd, run_search
from search_spaces.space import Space, parse_space
from trainers.checkpoint import load_checkpoint
from trainers.errors import DivergedError, UsageError
from trainers.run import Decision, Run


class Counter:
    """A state that is one number."""

    def __init__(self, step: int) -> None:
        self.step = step

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}


@dataclass(frozen=True)
class Analytic(Experiment):
    """`dev/miou` is quality * step / horizon; `behave` says what happens at `MISBEHAVE_AT`."""

    folder: Path
    """Where trials leave marks for each other's processes."""
    horizon: int = 9
    metric: str = "dev/miou"
    step_s: float = 0.0
    report_every: int = 1
    name: str = "analytic"
    breaks_at_warm_up: bool = False

    def resolve(self, overrides: Mapping[str, Value]) -> tuple[Mapping[str, Any], str]:
        config = {"quality": 0.5, "behave": "well", **overrides}
        if config["quality"] > 1:
            raise UsageError(f"quality must be at most 1, got {config['quality']}: lower it")
        return config, hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

    def warm_up(self, run: Run) -> None:
        if self.breaks_at_warm_up:
            raise RuntimeError("no data here")

    def train(self, overrides: Mapping[str, Value], run: Run) -> str:
        config, config_hash = self.resolve(overrides)
        restored = run.restore_from()
        state = Counter(load_checkpoint(restored)["step"] if restored else 0)
        first_step, trained = time.time(), 0
        if state.step == self.horizon:  # its driver died between the last step and its report
            run.report(self.measure(config, state, run, trained, first_step), state)
        while state.step < self.horizon:
            time.sleep(self.step_s)
            state.step += 1
            trained += 1
            self.note(config, state.step, run)
            metrics = self.measure(config, state, run, trained, first_step)
            if state.step == MISBEHAVE_AT:
                self.misbehave(config["behave"], run, metrics)
            if state.step % self.report_every and not metrics["finished"]:
                if run.interrupted(state):
                    break
            elif run.report(metrics, state) is Decision.STOP:
                break
            if state.step == MISBEHAVE_AT and config["behave"] == "leave early":
                break
        return "another hash" if config["behave"] == "lie" else config_hash

    def measure(
        self, config: Mapping[str, Any], state: Counter, run: Run, trained: int, first_step: float
    ) -> dict[str, float]:
        return {
            "step": float(state.step),
            "finished": float(state.step == self.horizon),
            "dev/miou": config["quality"] * state.step / self.horizon,
            "ranks": sum_over_ranks(1.0, run),
            "random": torch.rand(()).item() + torch.ones(()).double().item() * torch.get_num_threads(),
            "pid": float(os.getpid()),
            "trained": float(trained),
            "quality": config["quality"],
            "cost": 2 * config["quality"],
            "time/first_step_unix": first_step,
        }

    def note(self, config: Mapping[str, Any], step: int, run: Run) -> None:
        """Write down that a step was trained, for those who count steps that were trained twice."""
        if "name" in config and run.rank == 0:
            with (self.folder / f"{config['name']}.steps").open("a") as file:
                file.write(f"{step}\n")

    def misbehave(self, behave: str, run: Run, metrics: dict[str, float]) -> None:
        once = behave == "raise once" and self.first_time(behave)
        if once or behave == "raise" or (behave == "raise on rank 1" and run.rank == 1):
            raise RuntimeError("a bug in training")
        if behave == "diverge":
            raise DivergedError("the loss is not finite")
        if behave == "report nan":
            metrics["dev/miou"] = float("nan")
        if behave == "vandalise":
            torch.manual_seed(7)
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            torch.set_num_threads(2)
            os.chdir("/")
        if behave == "run out of memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64000000000 bytes.")
        if behave == "break the device":
            worker.computes = lambda device: False  # as CUDA is after an assert: every later call fails
            raise RuntimeError("CUDA error: device-side assert triggered")
        if behave == "kill once" and self.first_time(behave):
            os.kill(os.getpid(), signal.SIGKILL)
        if behave == "hang once" and self.first_time(behave):
            time.sleep(600)
        if behave == "spoil the checkpoint once" and self.first_time(behave):
            latest = max(self.folder.glob("*/trials/*/latest.pt"), key=os.path.getmtime)
            latest.write_bytes(latest.read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)

    def first_time(self, behave: str) -> bool:
        """Return whether no process has done this yet, and remember it across processes."""
        mark = self.folder / behave.replace(" ", "-")
        if mark.exists():
            return False
        mark.touch()
        return True


MISBEHAVE_AT = 5


def sum_over_ranks(value: float, run: Run) -> float:
    tensor = torch.tensor(value)
    if run.world_size > 1:
        dist.all_reduce(tensor)
    return tensor.item()


class Script:
    """A search space whose trials are written down; `x` is there for the sampler."""

    name, text, paths = "script", "", ()
    baseline_params: Mapping[str, Value] = {"x": 0.25}  # read only
    ours_params: Mapping[str, Value] | None = None
    fixed: Mapping[str, Value] = {}  # read only
    published: Mapping[str, Value] = {}  # read only
    baseline: Mapping[str, Value] = {}  # read only
    source = ""

    def __init__(self, trials: list[dict[str, Value]]) -> None:
        self.trials = trials

    def edges(self) -> Sequence[Mapping[str, Value]]:
        return ()

    def starting_from(self, config: Mapping[str, Any]) -> Script:
        return self

    def suggest(self, trial: Any) -> dict[str, Value]:
        return {"x": trial.suggest_float("x", 0, 1), "number": trial.number}

    def overrides(self, params: Mapping[str, Value]) -> dict[str, Value]:
        return dict(self.trials[int(params.get("number", 0))])


def quality_space() -> Space:
    """A real search space of one number: the quality of the stand-in."""
    return parse_space(
        "{name: quality, source: made up, baseline: {quality: 0.25}, "
        "parameters: {quality: {float: {low: 0.0, high: 1.0}}}}"
    )


class Witness:
    """An observer that writes everything down."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, int, str]] = []
        self.reports: dict[int, list[dict[str, float]]] = {}
        self.trials: dict[int, Trial] = {}

    def on_start(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        self.events.append(("start", trial.number, trial.step, trial.state))

    def on_report(self, trial: Trial) -> None:
        self.events.append(("report", trial.number, trial.step, trial.state))
        self.reports.setdefault(trial.number, []).append(dict(trial.metrics))

    def on_end(self, trial: Trial) -> None:
        self.events.append(("end", trial.number, trial.step, trial.state))


@dataclass(frozen=True)
class Plan:
    """A search without records, ready to run several times over."""

    folder: Path
    config: SearchConfig
    allocation: Allocation

    def run(self, experiment: Experiment, space: SearchSpace, observers: Sequence[TrialObserver] = ()) -> SearchEnd:
        return run_search(Search(self.folder, experiment, space, self.config, self.allocation, observers=observers))


def plan_of(folder: Path, gangs: int = 1, workers_per_gang: int = 1, **options: Any) -> Plan:
    return Plan(folder, SearchConfig.of(**options), Allocation(gangs, workers_per_gang))
