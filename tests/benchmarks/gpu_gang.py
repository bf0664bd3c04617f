"""Warm gangs on a card: short searches under Ray, what their trials wait for, and what a trial's fault leaves."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gpu_rows import NEEDS_CUDA, NOT_QUICK, Row, Setting, missing

from harness.experiment import CssExperiment
from harness.formats import HOUR_S, counted

if TYPE_CHECKING:
    from harness.reporting.record import Record
    from harness.trials import Value
    from trainers.run import Run

TRIALS = 8
STEPS = 100
FIGURES = {
    "start of a trial, median": "overhead/start_s",
    "a report, median": "overhead/report_s",
    "a step, median": "time/step_s",
}
"""Rows by the metric that they are the median of, over all reports."""
SETTINGS = {"data.unlabelled": 128, "data.dev": 32, "schedule.steps": STEPS, "schedule.evaluate_every": 20}
SEEDS = """
name: seeds
source: one training, several times
baseline: {seed: 0}
parameters:
  seed: {categorical: [0, 1, 2, 3, 4]}
"""
OUT_OF_MEMORY, ASSERT = 1, 3
TRAININGS = ("the first", "out of memory", "the next", "an assert on the device", "the last")
"""By seed."""
FAULTS = "faults in a warm gang"


class Faulty(CssExperiment):
    """One training of digits, whatever the seed, but for two that fail as a card makes them; each notes its process."""

    folder = Path()

    def train(self, overrides: Mapping[str, Value], run: Run) -> str:
        """Train, or fail."""
        seed = overrides.get("seed", 0)
        with (self.folder / f"{seed}.pids").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if seed == OUT_OF_MEMORY:
            block, blocks = 2**30 if run.device.type == "cuda" else 2**50, list[torch.Tensor]()
            while True:
                blocks.append(torch.empty(block, dtype=torch.uint8, device=run.device))
        if seed == ASSERT and run.device.type == "cuda":
            torch.zeros(3, device=run.device)[torch.tensor([7], device=run.device)].sum().item()
        super().train({}, run)
        return self.resolve(overrides)[1]


def measure_gang(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield the times of searches of digits, in one gang and on a card in several that share it, and what faults do."""
    if setting.quick:
        yield missing("warm gang", NOT_QUICK)
        return
    for gangs in (1, 2, 4) if setting.cuda else (1,):
        yield from _figures(gangs, root)
    yield from _faults(setting, root)


def _search(experiment: CssExperiment, space: Path | str, trials: int, root: Path, name: str, **options: Any) -> Record:
    import harness
    from harness.reporting.record import read_record

    harness.search(
        experiment,
        space=space,
        name=name,
        storage=root / "runs",
        tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
        report=False,
        quiet=True,
        trials=trials,
        scheduler="none",
        **options,
    )
    return read_record(root / "runs" / name)


def _figures(gangs: int, root: Path) -> Iterator[Row]:
    digits, begun = CssExperiment.of("digits_css", SETTINGS), time.monotonic()
    record = _search(digits, "css_quick", TRIALS, root, f"gangs-{gangs}", gangs=gangs, gangs_per_gpu=gangs)
    elapsed_s, of = time.monotonic() - begun, counted(gangs, "gang")
    spans, devices = record.times.spans, record.times.machine.get("devices", "devices unknown")
    note = f"{TRIALS} trials of {STEPS} steps, on {devices}"
    yield Row("search, from beginning to end", elapsed_s, "s", note=note, of=of)
    busy_s = max(span.end_s for span in spans) - min(span.start_s for span in spans)
    yield Row("trials an hour, once the first has begun", len(spans) * HOUR_S / busy_s, of=of)
    reports = [metrics for by_step in record.reports.values() for metrics in by_step.values()]
    for what, metric in FIGURES.items():
        values = [metrics[metric] for metrics in reports if metric in metrics]
        yield Row(what, 1e3 * statistics.median(values), "ms", of=of)


def _faults(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield what the trials of a warm gang are after one that ran out of memory and one that broke the device."""
    experiment = Faulty.of("digits_css", {**SETTINGS, "compute.deterministic": True})
    experiment.folder = root / "processes"
    experiment.folder.mkdir()
    space = root / "seeds.yaml"
    space.write_text(SEEDS, encoding="utf-8")
    record = _search(experiment, space, len(TRAININGS), root, "faults", gangs=1, sampler="grid")
    failed = {TRAININGS[int(trial.params["seed"])] for trial in record.trials.values() if trial.state == "FAIL"}
    losses = [by_step[STEPS]["train/loss/total"] for by_step in record.reports.values() if STEPS in by_step]
    processes = {pid for file in experiment.folder.iterdir() for pid in file.read_text(encoding="utf-8").split()}
    yield Row("trials that failed", len(failed), note=", ".join(sorted(failed)), of=FAULTS)
    yield Row(
        "largest difference of the others' losses", max(losses) - min(losses), note=f"{len(losses)} of them", of=FAULTS
    )
    yield Row("processes, one after the other", len(processes), note="an assert costs one", of=FAULTS)
    if not setting.cuda:
        yield missing(TRAININGS[ASSERT], NEEDS_CUDA, FAULTS)
