"""The other side of `bench_search.py`: the pattern of Ray's documentation, in a process of its own.

A Tune function builds and fits a TorchTrainer in every trial; TuneReportCallback carries its reports to Tune, where
OptunaSearch and ASHAScheduler decide. As documented, the functions are held by a resource of their own, so that they
take no CPU from the workers, and `max_concurrent_trials` keeps as many as the workers' CPUs hold. Ray's settings are
its defaults, dashboard included: without it pruned trials do not give their places back. Two things are spared: the
search's storage is in memory, and only the end of a trial is a checkpoint, as on the other side.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import ray
import ray.train
import ray.train.torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from search_timeline import EventLog
from search_workload import GRACE, HORIZON, METRIC, PLACES, REDUCTION, SEED, experiment, space

from trainers.run import Checkpointable, Decision

DRIVER = "TRAIN_DRIVER_RESOURCE"


class StockRun:
    """`trainers.run.Run` over `ray.train.report`: a trial is not asked whether to stop, it is killed."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = ray.train.torch.get_device()

    def wrap(self, model: Any) -> Any:
        return ray.train.torch.prepare_model(model)

    def restore_from(self) -> None:
        return None

    def interrupted(self, state: Checkpointable) -> bool:
        return False

    def report(self, metrics: Mapping[str, float], state: Checkpointable) -> Decision:
        if not metrics["finished"]:
            ray.train.report(dict(metrics))
            return Decision.CONTINUE
        from trainers.checkpoint import save_checkpoint

        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder) / "latest.pt", state.state_dict())
            ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint.from_directory(folder))
        return Decision.CONTINUE


def train_on_a_worker(config: dict[str, Any]) -> None:
    """What each worker of a trial runs."""
    import torch

    torch.set_num_threads(1)
    experiment().train(config["overrides"], StockRun())


def drive_a_trial(config: dict[str, Any]) -> None:
    """What Tune runs as a trial."""
    trainer = ray.train.torch.TorchTrainer(
        train_on_a_worker,
        train_loop_config={"overrides": space().overrides(config["params"])},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=f"train-trial_id={tune.get_context().get_trial_id()}",
            storage_path=config["storage"],
            callbacks=[TuneReportCallback()],
        ),
    )
    trainer.fit()


class Witness(tune.Callback):
    """Writes an event log."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._log.note("start", trial=trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._log.note("report", trial=trial.trial_id, steps=int(result["step"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, failed=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial, failed=True)

    def _end(self, trial: Any, failed: bool) -> None:
        steps = int((trial.last_result or {}).get("step", 0))
        self._log.note("end", trial=trial.trial_id, steps=steps, failed=failed)


def suggest(folder: str, trial: Any) -> dict[str, Any]:
    """Draw a trial: the config of `drive_a_trial`."""
    return {"params": space().suggest(trial), "storage": folder}


def main(folder: Path, trials: int) -> None:
    """Search below `folder`."""
    log = EventLog(folder / "events.jsonl")
    ray.init(
        address="local",
        num_cpus=PLACES,
        resources={DRIVER: PLACES},
        include_dashboard=True,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    tuner = tune.Tuner(
        tune.with_resources(drive_a_trial, {DRIVER: 0.01}),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=OptunaSearch(
                space=partial(suggest, str(folder / "train")),
                metric=METRIC,
                mode="max",
                sampler=optuna.samplers.TPESampler(seed=SEED),
                points_to_evaluate=[space().baseline_params],
            ),
            scheduler=ASHAScheduler(time_attr="step", max_t=HORIZON, grace_period=GRACE, reduction_factor=REDUCTION),
            num_samples=trials,
            max_concurrent_trials=PLACES,
        ),
        run_config=tune.RunConfig(name="stock", storage_path=str(folder), callbacks=[Witness(log)], verbose=0),
    )
    tuner.fit()
    log.note("done")
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
