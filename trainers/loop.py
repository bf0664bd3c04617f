"""Training loop."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from trainers.checkpoint import load_checkpoint
from trainers.class_weights import with_counted_weights
from trainers.compute import step_algorithms
from trainers.config import TrainConfig
from trainers.data.batches import check_batches
from trainers.data.splits import open_splits
from trainers.distributed import sum_over_ranks
from trainers.errors import require_finite
from trainers.evaluate import evaluate_state
from trainers.health import discriminator_health
from trainers.loader import BatchLoader, load_batch
from trainers.run import Decision, Run
from trainers.schedules import cross_warmup_steps, loss_weights
from trainers.state import TrainState
from trainers.step import StepOutput
from trainers.targets import StepContext
from trainers.whole_step import FORMING, as_graph_or_as_it_is, forming, is_graph, step_of


def train(config: TrainConfig, run: Run) -> TrainState:
    """Train to the horizon, or until `run` says stop; return the state.

    Every `evaluate_every` steps and at the last one, the teacher is evaluated on the dev split and the metrics and the
    state go through `run.report`. A run that is interrupted between two reports is saved there: it goes on with the
    same state, only the training losses of its next report are means over fewer steps.

    Raises:
        ConfigError, DataError: the config does not fit the ranks or the data.
        DivergedError: a loss is not finite.
    """
    check_batches(config, run.world_size)
    return as_graph_or_as_it_is(lambda: _train(config, run))


def _train(config: TrainConfig, run: Run) -> TrainState:
    splits = open_splits(config.data)
    state = TrainState(config, run)
    checkpoint = run.restore_from()
    if checkpoint is not None:
        state.load_state_dict(load_checkpoint(checkpoint))
    steps = config.schedule.steps
    warmup = cross_warmup_steps(config.css, config.schedule, len(splits.labelled), len(splits.unlabelled))
    counted = with_counted_weights(config)
    step, taken = step_of(counted, run), 0
    networks, meter = (state.wrapped, state.teaching), Meter(run)
    if state.step == steps:  # interrupted between the last step and its report
        run.report(meter.read(state) | evaluate_state(state, splits, config, run), state)
    state.mark_report()  # states are saved at reports
    loading = BatchLoader(splits, config, run.rank, run.world_size, run.device)
    with step_algorithms(config, run.device), loading as loader:
        while state.step < steps:
            context = StepContext(config.seed, state.step, run.rank, run.world_size, warming_up=state.step < warmup)
            batch = loader.load(state.step)
            weights = loss_weights(config, state.step)
            with forming(counted, run, taken):
                for part in step(*networks, state.prototypes, batch, context, state.bank, state.judging):
                    loss = part.weighted(weights)
                    # Gradients are averaged over the ranks, losses are parts of a sum.
                    state.accumulate(loss * run.world_size)
                    meter.add(loss, part)
            state.advance(part.prototypes, part.bank)
            meter.count_step()
            taken += 1
            if state.step % config.schedule.evaluate_every == 0 or state.step == steps:
                metrics = meter.read(state) | evaluate_state(state, splits, config, run)
                if run.report(metrics, state) is Decision.STOP:
                    break
                state.mark_report()
                taken = FORMING  # what was reported is not begun anew
            elif run.interrupted(state):
                break
    return state


def warm_up(config: TrainConfig, run: Run) -> None:
    """Do once what later runs in this process need not wait for: imports, decoded data, the first step's set-up.

    Every rank calls it; the steps that it takes are thrown away: one, or as many as CUDA captures a graph in.
    """
    check_batches(config, run.world_size)
    as_graph_or_as_it_is(lambda: _warm_up(config, run))


def _warm_up(config: TrainConfig, run: Run) -> None:
    splits = open_splits(config.data)
    splits.dev.fetch([0])
    state = TrainState(config, run)
    context = StepContext(config.seed, 0, run.rank, run.world_size)
    batch = load_batch(splits, config, context, run.device)
    weights = loss_weights(config, 0)
    counted = with_counted_weights(config)
    step, networks = step_of(counted, run), (state.wrapped, state.teaching)
    with step_algorithms(config, run.device):
        for taken in range(FORMING if is_graph(counted, run.world_size) else 1):
            with forming(counted, run, taken):
                for part in step(*networks, state.prototypes, batch, context, state.bank, state.judging):
                    state.accumulate(part.weighted(weights))
            state.advance(part.prototypes, part.bank)


class Meter:
    """Means of losses and statistics since the last report, kept on the device and read once a report."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.losses: dict[str, Tensor] = {}
        self.statistics: dict[str, Tensor] = {}
        self.steps = 0
        self.first_step: float | None = None
        self.since = time.perf_counter()

    def add(self, loss: Tensor, output: StepOutput) -> None:
        """Take in one part of a step; nothing is copied to the host."""
        with torch.no_grad():
            for name, value in {"total": loss, **output.losses}.items():
                self.losses[name] = self.losses.get(name, 0.0) + value.detach()
            for name, value in output.statistics.items():
                self.statistics[name] = self.statistics.get(name, 0.0) + value.detach()

    def count_step(self) -> None:
        """Note that all parts of a step were added."""
        self.steps += 1
        if self.first_step is None:
            self.first_step = time.time()

    def read(self, state: TrainState) -> dict[str, float]:
        """Return the metrics since the last call and start again.

        Raises:
            DivergedError: one of them is not finite.
        """
        names = [f"train/loss/{name}" for name in self.losses] + [f"train/{name}" for name in self.statistics]
        metrics = {"step": float(state.step), "finished": float(state.step == state.config.schedule.steps)}
        if self.steps:
            local = torch.stack([*self.losses.values(), *self.statistics.values()]) / self.steps
            (losses,) = sum_over_ranks([local[: len(self.losses)]], self.run.world_size)
            # Reading the values waits for the device, and so for the steps.
            values = torch.cat([losses, local[len(self.losses) :]]).tolist()
            metrics |= dict(zip(names, values, strict=True))
            metrics |= discriminator_health(metrics, state.step / state.config.schedule.steps)
            metrics["time/step_s"] = (time.perf_counter() - self.since) / self.steps
        if self.first_step is not None:
            metrics["time/first_step_unix"] = self.first_step
        self.losses, self.statistics, self.steps, self.since = {}, {}, 0, time.perf_counter()
        require_finite(metrics, state.step)
        return metrics
