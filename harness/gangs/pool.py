"""Starts the gangs of a search and ends them."""

from __future__ import annotations

import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray.train import BackendConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from harness.gangs.gang import GangSpec, gang_loop
from harness.trials import Experiment

CLOSE_TIMEOUT_S = 30.0
"""How long a closing search waits for its gangs. A gang ends at its trial's next report; what is later than this
ends with the Ray session."""


class GangTrainer(DataParallelTrainer):  # type: ignore[misc]  # ray is untyped
    """Ray's TorchTrainer without two helper processes a run that gangs have no use for.

    They are the shards of Ray Data, and the cleaner for a controller that died: a search whose controller died ends,
    and so does what it holds. On two cores each costs every start a second or two.
    """

    UNUSED = frozenset({"DatasetsCallback", "PlacementGroupCleanerCallback"})

    def _create_default_callbacks(self) -> list[Any]:
        return [
            callback for callback in super()._create_default_callbacks() if type(callback).__name__ not in self.UNUSED
        ]


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
        self._closing = False
        self._threads = []
        for gang in range(gangs):
            spec = GangSpec(gang, dispatcher, experiment, None if use_gpu else threads_per_worker, save_interval_s)
            name = f"gang-{gang}"
            trainer = GangTrainer(
                gang_loop,
                # By reference, so that the run's controller does not import what only workers need.
                train_loop_config={"spec": ray.put(spec)},
                # A gang of one has no process group, and its controller then does without torch.
                backend_config=TorchConfig("nccl" if use_gpu else "gloo") if workers_per_gang > 1 else BackendConfig(),
                scaling_config=ScalingConfig(
                    num_workers=workers_per_gang,
                    use_gpu=use_gpu,
                    resources_per_worker={"CPU": 1, "GPU": 1} if use_gpu else {"CPU": 1},
                ),
                run_config=RunConfig(
                    name=name, storage_path=str(storage), failure_config=FailureConfig(max_failures=-1)
                ),
            )
            self._threads.append(threading.Thread(target=self._fit, args=(trainer, name), name=name, daemon=True))

    def __enter__(self) -> GangPool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
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
            reason = None if self._closing else ray.get(self._dispatcher.close_reason.remote())
        except Exception as error:
            reason = f"{name} ended: {''.join(traceback.format_exception_only(error)).strip()}"
        if reason is not None:
            self._broken.append(reason)
