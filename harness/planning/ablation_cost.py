"""The cost of an ablation before it trains: trainings, steps and checkpoints counted, hours from what is known."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.ablation.request import Request
from harness.formats import HOUR_S, big_number, byte_size, counted, duration
from harness.ledger import LEDGER, read_ledger
from harness.planning.measure import existing
from harness.planning.search_cost import counted_bytes
from harness.run_folder import LATEST, TRIALS, checkpoint_folder
from harness.tables import Table, facts_table
from trainers.config import TrainConfig
from trainers.cost import step_cost
from trainers.errors import UsageError
from trainers.overrides import apply_overrides

CARDS = {
    "v100": {"bfloat16": 15.7, "tf32": 15.7, "float32": 15.7},
    "a100": {"bfloat16": 312.0, "tf32": 156.0, "float32": 19.5},
    "l40s": {"bfloat16": 362.0, "tf32": 183.0, "float32": 91.6},
    "h100": {"bfloat16": 989.0, "tf32": 495.0, "float32": 67.0},
    "h200": {"bfloat16": 989.0, "tf32": 495.0, "float32": 67.0},
}
"""Peak TFLOP/s of dense matrix products by `compute.precision`, by the makers' data sheets (the V100 has no others)."""
REACHED = 0.2
"""Share of the peak that a training step reaches: an assumption, not a measurement."""


class AblationCost(NamedTuple):
    """An ablation, and what is left of it to train."""

    name: str
    variants: int
    """Of which trainings are asked for."""
    seeds: int
    trainings: int
    done: int
    """Trainings that are over."""
    horizon: int
    """Optimizer steps of a training."""
    workers: int
    """Processes that train one variant together, a device each."""
    checkpoint: int | None
    """Bytes of one; none for an own experiment that has left none."""
    measured: bool
    """Whether the checkpoint lies in the folder; else its size is counted for the base config."""
    free: int
    """Bytes of the disk."""
    step_s: float | None
    """Seconds of a step, as they were given."""
    held_s: float | None
    """All device-seconds that the folder tells of, over its complete trainings; none without any."""
    card: str | None = None
    """GPU for which seconds are estimated, of `CARDS`."""
    flops: int = 0
    """Operations of all trainings that are left, where a card is given."""
    precision: str = "float32"
    """Of the base config's networks."""

    @property
    def left(self) -> int:
        """Trainings that are not over; one that was interrupted counts whole."""
        return self.trainings - self.done

    @property
    def steps(self) -> int:
        """Optimizer steps of what is left."""
        return self.left * self.horizon

    @property
    def peak(self) -> float:
        """Operations a second at the card's peak."""
        return 1e12 * CARDS[self.card or ""][self.precision]

    @property
    def device_s(self) -> float | None:
        """Device-seconds of what is left; none where nothing is known."""
        if self.step_s is not None:
            return self.steps * self.step_s * self.workers
        if self.card is not None:
            return self.flops / (REACHED * self.peak)
        return None if self.held_s is None else self.left * self.held_s


def plan_ablation(
    folder: Path, request: Request, workers: int, step_s: float | None = None, card: str | None = None
) -> AblationCost:
    """Return what an ablation would take; nothing is trained or measured.

    Args:
        workers: processes that train one variant together.
        step_s: seconds of a step with these workers, as somebody measured them.
        card: one of `CARDS`, for which seconds are estimated from counted operations.

    Raises:
        UsageError: the folder's ledger cannot be read, the card is unknown, or operations cannot be counted.
    """
    if card is not None and card not in CARDS:
        raise UsageError(f"--card must be one of {', '.join(CARDS)}, got {card!r}: choose one, or give --step-seconds")
    if card is not None and request.info.trainer != "css":
        raise UsageError(
            "--card must go with this project's trainer, got an experiment of your own: give --step-seconds"
        )
    history = read_ledger(folder / LEDGER)
    numbers = range(len(request.runs))
    over = [number for number in numbers if number in history.trials and history.trials[number].state.over]
    complete = [number for number in over if history.trials[number].state == "COMPLETE"]
    files = [checkpoint_folder(folder / TRIALS, number) / LATEST for number in complete]
    sizes = [path.stat().st_size for path in files if path.exists()]
    size = max(sizes, default=None)
    if size is None and request.info.trainer == "css":
        size = counted_bytes(TrainConfig.model_validate(request.info.config))
    return AblationCost(
        folder.name, len(request.tried), len(request.seeds), len(request.runs), len(over), request.info.horizon,
        workers, size, bool(sizes), shutil.disk_usage(existing(folder)).free, step_s,
        history.device_s / len(complete) if complete and history.device_s else None,
        card, 0 if card is None else _operations(request, [n for n in numbers if n not in over], workers),
        request.info.config.get("compute", {}).get("precision", "float32"),
    )  # fmt: skip


def _operations(request: Request, numbers: Sequence[int], workers: int) -> int:
    """Return the operations of these trainings, a step of each kind of config counted once."""
    base, steps = TrainConfig.model_validate(request.info.config), dict[str, int]()
    total = 0
    for number in numbers:
        config = apply_overrides(base, request.overrides(request.runs[number]))
        alike = config.model_copy(update={"data": base.data, "seed": base.seed})
        if alike.hash not in steps:
            steps[alike.hash] = workers * step_cost(alike, workers).flops.total
        total += steps[alike.hash] * config.schedule.steps
    return total


def to_json(cost: AblationCost) -> dict[str, Any]:
    """Return the plan as numbers: trainings, steps, bytes, device-hours."""
    hours = None if cost.device_s is None else cost.device_s / HOUR_S
    return {**cost._asdict(), "left": cost.left, "steps": cost.steps, "device_hours": hours}


def to_table(cost: AblationCost) -> Table:
    """Return the plan as names and values."""
    done = f", {cost.done} of them done" if cost.done else ""
    rows = [
        ("trainings", f"{cost.trainings}: {counted(cost.variants, 'variant')}, {counted(cost.seeds, 'seed')}{done}"),
        ("steps", f"{cost.steps:,}: {counted(cost.left, 'training')} of {cost.horizon}"),
    ]
    disk = [("checkpoints", "not known: the experiment is not of this project's trainer")]
    if cost.checkpoint is not None:
        how = "as in the folder" if cost.measured else "counted for the base config"
        sizes = f"{byte_size(cost.checkpoint)} each ({how}): {byte_size(cost.left * cost.checkpoint)}"
        disk = [("checkpoints", f"{cost.left} to keep, {sizes}; two more a gang while it trains")]
    disk.append(("  free", f"{byte_size(cost.free)} in --storage"))
    return facts_table("cost", f"cost of {cost.name}", [rows, _hours(cost), disk])


def _hours(cost: AblationCost) -> list[tuple[str, str]]:
    if cost.device_s is None:
        return [("device-hours", "not known: nothing is complete here to go by; give --step-seconds, which s4 plan "
                                 "--space times where it runs, or --card")]  # fmt: skip
    if cost.step_s is not None:
        of = f"steps of {duration(cost.step_s)}, as given, on {counted(cost.workers, 'device')} each"
        without = "evaluations, checkpoints and starts; variants whose steps take longer or shorter"
    elif cost.card is not None:
        of = (f"{big_number(cost.flops)}FLOP counted, on an {cost.card.upper()} at {cost.peak / 1e12:g} TFLOP/s "
              f"({cost.precision}), of which {REACHED:.0%} are assumed to be reached")  # fmt: skip
        without = "evaluations, checkpoints, starts, and waiting for data or for other workers"
    else:
        of = f"{duration(cost.held_s or 0.0)} a training: all that devices were held here, over what is complete"
        without = "the evaluation after training; other hardware than theirs"
    return [("device-hours", f"{cost.device_s / HOUR_S:.3g}: {of}"), ("  not in them", without)]
