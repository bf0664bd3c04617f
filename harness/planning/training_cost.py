"""The cost of one configuration before it runs: counted, not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from harness.cli.options import base_config
from harness.formats import GIB, big_number, byte_size
from harness.tables import Table, facts_table
from trainers.errors import ConfigError

if TYPE_CHECKING:
    from trainers.config import TrainConfig
    from trainers.cost import StepCost
    from trainers.models.weights import WeightReport

GPU_SIZES = (16, 24, 40, 48, 80)
"""Memory of common GPUs, in GiB."""


class Plan(NamedTuple):
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


def make_plan(preset: str, words: list[str], workers: int) -> Plan:
    """Count what a step costs.

    Raises:
        ConfigError, DataError: the preset, a setting, the workers or the encoder's weights are refused.
    """
    from trainers.overrides import parse_settings

    config = base_config(preset, parse_settings(words))

    from trainers.cost import step_cost

    weights = None
    if config.model.arch == "deeplabv3plus":
        from trainers.models.weights import inspect_weights

        weights = inspect_weights(config.model)
    return Plan(preset, config, workers, step_cost(config, workers), weights)


def check_memory(plan: Plan, memory: float) -> None:
    """Refuse what does not fit.

    Raises:
        ConfigError: a worker needs more than `memory` GiB, with the allowance.
    """
    from trainers.cost import ALLOWANCE

    need = plan.cost.memory
    if need.needed > memory * GIB:
        raise ConfigError(
            f"a step must fit in --memory {memory:g} GiB, a worker needs {need.needed / GIB:.2f} GiB "
            f"({need.peak / GIB:.2f} counted and {ALLOWANCE:.0%} allowed for what is not): raise schedule.accumulate "
            f"above {plan.config.schedule.accumulate}, take more than {plan.workers} --workers, or a smaller "
            "augment.weak.crop"
        )


def to_table(plan: Plan) -> Table:
    """Return the plan as names and values."""
    parts = [_network_rows(plan), _batch_rows(plan), _memory_rows(plan), _traffic_rows(plan)]
    return facts_table("plan", f"plan of {plan.preset}, workers: {plan.workers}", parts)


def to_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as numbers: bytes, operations, counts."""
    from trainers.cost import ALLOWANCE

    cost, schedule = plan.cost, plan.config.schedule
    return {
        "preset": plan.preset,
        "config_hash": plan.config.hash,
        "workers": plan.workers,
        "parameters": {**cost.parameters._asdict(), "total": cost.parameters.total},
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
            "worker_step": {**cost.flops._asdict(), "total": cost.flops.total},
            "step": plan.step_flops,
            "image": plan.step_flops / plan.images,
            "horizon": plan.step_flops * schedule.steps,
        },
        "memory": {
            **cost.memory._asdict(),
            "peak": cost.memory.peak,
            "allowance": ALLOWANCE,
            "needed": cost.memory.needed,
        },
        "fits_gib": plan.fits,
        "traffic": cost.traffic._asdict(),
    }


def _network_rows(plan: Plan) -> list[tuple[str, str]]:
    parameters, model = plan.cost.parameters, plan.config.model
    name: str = model.arch
    if model.arch == "deeplabv3plus":
        stem = ", deep stem" if model.stem == "deep" else ""
        name = f"{model.arch} on {model.backbone}{stem}, output stride {model.output_stride}"
    rows = [
        ("network", f"{name}, {plan.config.compute.precision}"),
        (
            "parameters",
            f"{big_number(parameters.total)}: encoder {big_number(parameters.encoder)}, the rest "
            f"{big_number(parameters.heads)}",
        ),
    ]
    return rows if plan.weights is None else [*rows, ("encoder weights", str(plan.weights))]


def _batch_rows(plan: Plan) -> list[tuple[str, str]]:
    schedule, flops = plan.config.schedule, plan.cost.flops
    unlabelled = plan.images - schedule.labelled_batch
    each = f"{schedule.labelled_batch // plan.workers} + {unlabelled // plan.workers}"
    parts = "at once" if schedule.accumulate == 1 else f"in {schedule.accumulate} parts"
    return [
        ("batch", f"{schedule.labelled_batch} labelled + {unlabelled} unlabelled images a step; "
                  f"{each} a worker, {parts}"),
        ("operations a step", f"{big_number(plan.step_flops)}FLOP: " + ", ".join(
            f"{name} {big_number(plan.workers * count)}" for name, count in flops._asdict().items())),
        ("operations an image", f"{big_number(plan.step_flops // plan.images)}FLOP, forward and backward of all"),
        ("horizon", f"{schedule.steps} steps, {big_number(plan.step_flops * schedule.steps)}FLOP"),
    ]  # fmt: skip


def _memory_rows(plan: Plan) -> list[tuple[str, str]]:
    from trainers.cost import ALLOWANCE

    memory = plan.cost.memory
    parts = ", ".join(f"{name} {byte_size(size)}" for name, size in memory._asdict().items())
    sizes = ", ".join(f"{size} GiB" for size in plan.fits) or "none of these sizes"
    return [
        ("memory a worker", f"{byte_size(memory.peak)} alive at the peak of a step: {parts}"),
        ("  with allowance", f"{byte_size(memory.needed)}: {ALLOWANCE:.0%} are assumed for workspaces and "
                             "fragmentation, which are not counted"),
        ("  fits GPUs of", f"{sizes} (of {', '.join(map(str, GPU_SIZES))})"),
    ]  # fmt: skip


def _traffic_rows(plan: Plan) -> list[tuple[str, str]]:
    parts = ", ".join(f"{name} {byte_size(size)}" for name, size in plan.cost.traffic._asdict().items())
    return [("network a step", "nothing, one worker" if plan.workers == 1 else f"each worker contributes {parts}")]
