"""The cost of one configuration before it runs: counted, not measured."""

from __future__ import annotations

from typing import Any, NamedTuple

from harness.experiment import CssExperiment
from harness.formats import GIB, big_number, byte_size
from harness.tables import Table, facts_table
from trainers.config import TrainConfig
from trainers.cost import ALLOWANCE, StepCost, step_cost
from trainers.errors import ConfigError
from trainers.models.weights import WeightReport, inspect_weights

GPU_SIZES = (16, 24, 40, 48, 80)
"""Memory of common GPUs, in GiB."""
Rows = list[tuple[str, str]]
"""Names and values."""


class TrainingCost(NamedTuple):
    """A configuration on a number of workers, and what a step of it costs each."""

    preset: str
    config: TrainConfig
    workers: int
    cost: StepCost
    weights: WeightReport | None
    """What the configured file holds of the encoder; none where no file is configured."""

    @property
    def images(self) -> int:
        """Images that the student sees in a step, over all workers."""
        schedule = self.config.schedule
        return schedule.labelled_batch + (schedule.unlabelled_batch if self.config.uses_unlabelled else 0)

    @property
    def step_flops(self) -> int:
        """Over all workers."""
        return self.workers * self.cost.flops.total

    @property
    def fits(self) -> list[int]:
        """Sizes of GPUs, in GiB, that hold what a worker needs with the allowance."""
        return [size for size in GPU_SIZES if self.cost.memory.needed <= size * GIB]


def plan_training(experiment: CssExperiment, workers: int = 1, memory: float | None = None) -> TrainingCost:
    """Count what a step costs.

    Raises:
        ConfigError, DataError: the workers or the encoder's weights are refused, or more than `memory` GiB needed.
    """
    config = experiment.base
    weights = inspect_weights(config.model) if config.model.arch != "tiny" else None
    plan = TrainingCost(experiment.name, config, workers, step_cost(config, workers), weights)
    if memory is not None:
        check_memory(plan, memory)
    return plan


def check_memory(plan: TrainingCost, memory: float) -> None:
    """Refuse what does not fit.

    Raises:
        ConfigError: a worker needs more than `memory` GiB, with the allowance.
    """
    need = plan.cost.memory
    if need.needed > memory * GIB:
        raise ConfigError(
            f"a step must fit in --memory {memory:g} GiB, a worker needs {need.needed / GIB:.2f} GiB "
            f"({need.peak / GIB:.2f} counted and {ALLOWANCE:.0%} allowed for what is not): raise schedule.accumulate "
            f"above {plan.config.schedule.accumulate}, take more than {plan.workers} --workers, or a smaller "
            "augment.weak.crop"
        )


def to_json(plan: TrainingCost) -> dict[str, Any]:
    """Return the plan as numbers: bytes, operations, counts."""
    cost, schedule = plan.cost, plan.config.schedule
    parameters, flops, memory, traffic = cost
    return {
        "preset": plan.preset,
        "config_hash": plan.config.hash,
        "workers": plan.workers,
        "parameters": {**parameters._asdict(), "total": parameters.total},
        "weights": None if plan.weights is None else plan.weights._asdict(),
        "batch": {
            "images": plan.images,
            "labelled": schedule.labelled_batch,
            "unlabelled": plan.images - schedule.labelled_batch,
            "images_per_worker": plan.images // plan.workers,
            "accumulate": schedule.accumulate,
        },
        "steps": schedule.steps,
        "flops": {
            "worker_step": {**flops._asdict(), "total": flops.total},
            "step": plan.step_flops,
            "image": plan.step_flops / plan.images,
            "horizon": plan.step_flops * schedule.steps,
        },
        "memory": {**memory._asdict(), "peak": memory.peak, "allowance": ALLOWANCE, "needed": memory.needed},
        "fits_gib": plan.fits,
        "traffic": traffic._asdict(),
    }


def to_table(plan: TrainingCost) -> Table:
    """Return the plan as names and values."""
    parts = [_network_rows(plan), _batch_rows(plan), _memory_rows(plan), _traffic_rows(plan)]
    return facts_table("plan", f"plan of {plan.preset}, workers: {plan.workers}", parts)


def _network_rows(plan: TrainingCost) -> Rows:
    parameters, model = plan.cost.parameters, plan.config.model
    network: str = model.arch
    if model.encoder_name is not None:
        network += f" on {model.encoder_name}{', deep stem' if model.stem == 'deep' else ''}"
    if model.arch == "deeplabv3plus":
        network += f", output stride {model.output_stride}"
    counts = f"encoder {big_number(parameters.encoder)}, the rest {big_number(parameters.heads)}"
    rows = [
        ("network", f"{network}, {plan.config.compute.precision}"),
        ("parameters", f"{big_number(parameters.total)}: {counts}"),
    ]
    return rows if plan.weights is None else [*rows, ("encoder weights", str(plan.weights))]


def _batch_rows(plan: TrainingCost) -> Rows:
    schedule, flops = plan.config.schedule, plan.cost.flops
    unlabelled = plan.images - schedule.labelled_batch
    each = f"{schedule.labelled_batch // plan.workers} + {unlabelled // plan.workers}"
    parts = "at once" if schedule.accumulate == 1 else f"in {schedule.accumulate} parts"
    counts = ", ".join(f"{name} {big_number(plan.workers * count)}" for name, count in flops._asdict().items())
    horizon = f"{schedule.steps} steps, {big_number(plan.step_flops * schedule.steps)}FLOP"
    return [
        ("batch", f"{schedule.labelled_batch} labelled + {unlabelled} unlabelled images a step; "
                  f"{each} a worker, {parts}"),
        ("operations a step", f"{big_number(plan.step_flops)}FLOP: {counts}"),
        ("operations an image", f"{big_number(plan.step_flops // plan.images)}FLOP, forward and backward of all"),
        ("horizon", horizon),
    ]  # fmt: skip


def _memory_rows(plan: TrainingCost) -> Rows:
    memory = plan.cost.memory
    sizes = ", ".join(f"{size} GiB" for size in plan.fits) or "none of these sizes"
    return [
        ("memory a worker", f"{byte_size(memory.peak)} alive at the peak of a step: {_sizes(memory)}"),
        ("  with allowance", f"{byte_size(memory.needed)}: {ALLOWANCE:.0%} are assumed for workspaces and "
                             "fragmentation, which are not counted"),
        ("  fits GPUs of", f"{sizes} (of {', '.join(map(str, GPU_SIZES))})"),
    ]  # fmt: skip


def _traffic_rows(plan: TrainingCost) -> Rows:
    traffic = f"each worker contributes {_sizes(plan.cost.traffic)}"
    return [("network a step", "nothing, one worker" if plan.workers == 1 else traffic)]


def _sizes(parts: Any) -> str:
    return ", ".join(f"{name} {byte_size(size)}" for name, size in parts._asdict().items())
