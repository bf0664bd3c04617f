"""Starts the gangs of a search and ends them."""

from __future__ import annotations

import logging
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
from harness.gangs.reconnect import insist
from harness.trials import Experiment

CLOSE_TIMEOUT_S = 30.0
"""How long a closing search waits for its gangs. A gang ends at its trial's next report; what is later than this
ends with the Ray session."""


MAX_STARTS = 3
"""How often in a row a gang's Ray Train run may end without having taken a trial, before the search is given up."""

log = logging.getLogger(__name__)


class GangTrainer(DataParallelTrainer):  # type: ignore[misc]  # ray is untyped
    """Ray's TorchTrainer without two helper processes a run that gangs have no use for.

    They are the shards of Ray Data, and the cleaner for a controller that died: Ray ends the workers of a controller
    that is gone, and `GangPool` starts the run anew. On two cores each costs every start a second or two.
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

    Ray Train replaces workers that die. Where the run itself ends (its controller died, or the gang had trained as many
    trials as one may), the thread starts another run under a new name.
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
        recycle_after: int = 0,
    ) -> None:
        """Prepare the gangs.

        Args:
            storage: absolute folder for what Ray Train writes; the names in it are deterministic.
            threads_per_worker: of the arithmetic on the CPU; beside a GPU torch chooses.
            save_interval_s, recycle_after: see `GangSpec`.
        """
        self._dispatcher = dispatcher
        self._storage = storage
        self._use_gpu = use_gpu
        self._workers = workers_per_gang
        self._broken: list[str] = []
        self._closing = threading.Event()
        threads = None if use_gpu else threads_per_worker
        self._threads = []
        for gang in range(gangs):
            spec = GangSpec(gang, dispatcher, experiment, threads, save_interval_s, recycle_after)
            thread = threading.Thread(target=self._keep_up, args=(spec,), name=f"gang-{gang}", daemon=True)
            self._threads.append(thread)

    def __enter__(self) -> GangPool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if kind is not None and issubclass(kind, KeyboardInterrupt):  # the second Ctrl-C: Ray's end ends the gangs
            return
        insist(self._dispatcher.close)
        for thread in self._threads:
            thread.join(CLOSE_TIMEOUT_S)

    @property
    def broken(self) -> str | None:
        """Why a gang ended for good before it was told to; none while all is well."""
        return self._broken[0] if self._broken else None

    def _keep_up(self, spec: GangSpec) -> None:
        """Run the gang until the search is over, in as many Ray Train runs as it takes."""
        name, runs, strikes, before = f"gang-{spec.gang}", 0, 0, 0
        while not self._closing.is_set():
            reason = self._fit(spec, f"{name}-{runs}" if runs else name)
            if self._closing.is_set():
                return
            runs += 1
            try:
                closed = insist(self._dispatcher.close_reason)
                trials = insist(self._dispatcher.trials_of, spec.gang)
            except Exception as error:
                closed, trials = f"{name} cannot reach the search: {_in_a_line(error)}", before
            strikes, before = (0 if trials != before else strikes + 1), trials
            if closed is None and strikes >= MAX_STARTS:
                closed = f"{name} ended {strikes} times in a row without training: {reason}"
            if closed is not None:
                self._broken.append(closed)
                return
            log.warning("%s ended (%s): started anew", name, reason)

    def _fit(self, spec: GangSpec, name: str) -> str:
        """Run the gang once; return how that ended."""
        try:
            self._trainer(spec, name).fit()
        except Exception as error:
            return _in_a_line(error)
        return "in order"

    def _trainer(self, spec: GangSpec, name: str) -> GangTrainer:
        resources = {"CPU": 1, "GPU": 1} if self._use_gpu else {"CPU": 1}
        return GangTrainer(
            gang_loop,
            # By reference, so that the run's controller does not import what only workers need.
            train_loop_config={"spec": ray.put(spec)},
            # A gang of one has no process group, and its controller then does without torch.
            backend_config=TorchConfig("nccl" if self._use_gpu else "gloo") if self._workers > 1 else BackendConfig(),
            scaling_config=ScalingConfig(
                num_workers=self._workers, use_gpu=self._use_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=name, storage_path=str(self._storage), failure_config=FailureConfig(max_failures=-1)
            ),
        )


def _in_a_line(error: Exception) -> str:
    return " ".join("".join(traceback.format_exception_only(error)).split())
