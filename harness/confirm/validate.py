"""The one look at the official validation images, after the choice was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainers.config import TrainConfig


def val_scores(config: TrainConfig, checkpoint: Path) -> dict[str, float]:
    """Return `val/miou` and `val/iou/CLASS` of the teacher in a checkpoint.

    Raises:
        DataError: the checkpoint is not of the horizon, or it or the validation images cannot be read.
    """
    from trainers.checkpoint import load_checkpoint
    from trainers.data.splits import open_val
    from trainers.errors import DataError
    from trainers.evaluate import evaluate
    from trainers.local_run import LocalRun
    from trainers.state import TrainState

    run = LocalRun()
    state = TrainState(config, run)
    state.load_state_dict(load_checkpoint(checkpoint))
    if state.step != config.schedule.steps:  # the disk was full when training ended
        raise DataError(
            f"a checkpoint of {config.schedule.steps} steps must lie in {checkpoint}, it has {state.step}: remove "
            "the confirmation and start again"
        )
    return evaluate(state.teacher, open_val(config.data), config, run, "val")


def validate_all(jobs: Mapping[int, tuple[TrainConfig, Path]], use_gpu: bool) -> dict[int, dict[str, float]]:
    """Return the scores of several checkpoints, by the keys of the jobs; on the cluster, a device each.

    A Ray session must be active.

    Raises:
        UsageError: as `val_scores`.
    """
    import ray

    work = ray.remote(val_scores).options(num_cpus=1, num_gpus=1 if use_gpu else 0)
    pending = {key: work.remote(config, path) for key, (config, path) in jobs.items()}
    try:
        return dict(zip(pending, ray.get(list(pending.values())), strict=True))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # in the words of the task, without Ray's traceback
