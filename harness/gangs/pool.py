"""Starts the gangs of a search and ends them."""

from __future__ import annotations

import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from harness.gangs.gang import GangSpec, gang_loop
from harness.trials import Experiment

CLOSE_TIMEOUT_S = 30.0
"""How long a closing search waits for its gangs. A gang ends at its trial's next report; what is later than this
ends with the Ray session."""


class GangPool:
    """The gangs of one search, from `with` to the end of the block.

    Each gang is a Ray Train run; a thread of the driver waits for it, which costs nothing, where a task of its own
    would cost a process that imports everything once more. Starting returns at once: the gangs get ready while the
    search prepares its first trials.
    """

    def __init__(
        self,
        dispatcher: Any,
        experiment: Experiment,
        gangs: int,
        workers_per_gang: int,
        storage: Path,
        use_gpu: bool = False,
        threads_per_worker: int = 1,
        save_interval_s: float = 30.0,
    ) -> None:
        """Prepare the gangs.

        Args:
            storage: absolute folder for what Ray Train writes; the names in it are deterministic.
            threads_per_worker: of the arithmetic on the CPU; beside a GPU torch chooses.
            save_interval_s: see `GangSpec`.
        """
        self._dispatcher = dispatcher
        self._broken: list[str] = []
        self._threads = []
        threads = None if use_gpu else threads_per_worker
        resources = {"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 1}
        for gang in range(gangs):
            trainer = TorchTrainer(
                gang_loop,
                train_loop_config={"spec": GangSpec(gang, dispatcher, experiment, threads, save_interval_s)},
                scaling_config=ScalingConfig(
                    num_workers=workers_per_gang, use_gpu=use_gpu, resources_per_worker=resources
                ),
                run_config=RunConfig(
                    name=f"gang-{gang}", storage_path=str(storage), failure_config=FailureConfig(max_failures=-1)
                ),
            )
            name = f"gang-{gang}"
            self._threads.append(threading.Thread(target=self._fit, args=(trainer, name), name=name, daemon=True))

    def __enter__(self) -> GangPool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.get(self._dispatcher.close.remote())
        for thread in self._threads:
            thread.join(CLOSE_TIMEOUT_S)

    @property
    def broken(self) -> str | None:
        """Why a gang ended for good before it was told to; none while all is well."""
        return self._broken[0] if self._broken else None

    def _fit(self, trainer: Any, name: str) -> None:
        try:
            trainer.fit()
        except Exception as error:
            self._broken.append(f"{name} ended: {''.join(traceback.format_exception_only(error)).strip()}")
