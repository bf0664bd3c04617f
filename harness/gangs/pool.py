"""The gangs of a search: their start, their nodes and their end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.train import BackendConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from harness.cluster import ClusterNodes, WorkerResources, cluster_nodes, reachable
from harness.connection import RayLostError, check_ray
from harness.gangs.client import call_with_retry
from harness.gangs.controllers import GangScaling, end_controllers, start_controllers
from harness.gangs.entry import gang_loop
from harness.gangs.messages import GangSpec, in_a_line
from harness.trials import Experiment

CLOSE_TIMEOUT_S = 30.0
"""How long a closing search waits for its gangs. A gang ends at its trial's next report; what is later than this
ends with the Ray session."""
MOVE_PAUSE_S = 30.0
"""Least time between two moves of an elastic gang to another size."""
LOOK_S = 0.5
"""Time between two looks at the cluster."""
MAX_STARTS = 3
"""How often in a row a gang's Ray Train run may end without having taken a trial, before the search is given up."""

log = logging.getLogger(__name__)


class GangTrainer(DataParallelTrainer):  # type: ignore[misc]  # ray is untyped
    """Ray's TorchTrainer whose controller runs in the process of all controllers, without helpers of no use for gangs.

    They are the shards of Ray Data, and the cleaner for a controller that died: Ray ends the workers of a controller
    that is gone, and `GangPool` starts the run anew. On two cores each costs every start a second or two.
    """

    UNUSED = frozenset({"DatasetsCallback", "PlacementGroupCleanerCallback"})

    def __init__(self, controllers: Any, *arguments: Any, **options: Any) -> None:
        self._controllers = controllers
        super().__init__(*arguments, **options)

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ not in self.UNUSED]

    def _initialize_and_run_controller(self, **options: Any) -> Any:
        """Run as Ray does, but look now and then whether Ray lives: a thread that waits in it for ever bars its end.

        Raises:
            RayLostError: Ray is gone.
        """
        ended = self._controllers.run.remote({**options, "scaling_policy": GangScaling(self.scaling_config)})
        while not ray.wait([ended], timeout=LOOK_S)[0]:
            check_ray()
        return ray.get(ended)


class GangPool:
    """The gangs of one search, from `with` to the end of the block.

    Each gang is a Ray Train run; a thread of the driver waits for it, which costs nothing, where a task of its own
    would cost a process that imports everything once more. Starting returns at once: the gangs get ready while the
    search prepares its first trials.

    Ray Train replaces workers that die. Where the run itself ends (its controller died, or the gang had trained as many
    trials as one may), the thread starts another run under a new name.

    A gang with several sizes is elastic: it starts with as many workers as the cluster can hold, loses the run when it
    loses a worker, and starts another run with what is left then; where the cluster grows, it moves to more. (Ray's own
    elastic runs take any number between two; ours must divide the batches.)
    """

    def __init__(
        self,
        dispatcher: Any,
        experiment: Experiment,
        gangs: int,
        sizes: Sequence[int],
        storage: Path,
        worker: WorkerResources,
        save_interval_s: float = 30.0,
        recycle_after: int = 0,
        most_gangs: int = 0,
    ) -> None:
        # `sizes` ascend, and only one gang may be elastic; gangs are added up to `most_gangs` as the cluster grows.
        self._dispatcher, self._storage, self.worker = dispatcher, storage, worker
        self._sizes = tuple(sizes)
        self._size = self._sizes[0]
        self._moved = float("-inf")
        self._broken: list[str] = []
        self._closing = threading.Event()
        self._controllers: Any = None
        self._spec = GangSpec(0, dispatcher, experiment, worker, save_interval_s, recycle_after)
        self._wanted, self._most = gangs, max(gangs, most_gangs)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> GangPool:
        self._controllers = start_controllers(self._wanted, self._dispatcher)
        self.grow(self._wanted)
        return self

    @property
    def gangs(self) -> int:
        """How many there are."""
        return len(self._threads)

    @property
    def workers(self) -> int:
        """How many processes all gangs have when all is well."""
        return self.gangs * self._size

    def grow(self, gangs: int) -> None:
        """Start more gangs, up to this number; none is ever taken away."""
        while self.gangs < gangs:
            spec = replace(self._spec, gang=self.gangs)
            thread = threading.Thread(target=self._keep_up, args=(spec,), name=f"gang-{spec.gang}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def fit_to(self, slots: int) -> None:
        """Start more gangs, or move an elastic one to more workers, where the cluster can hold them now."""
        self.grow(min(self._most, slots // self._sizes[0]))
        now = time.monotonic()
        if now - self._moved >= MOVE_PAUSE_S and self._fitting(slots) > self._size:
            self._moved = now
            self._dispatcher.move.remote(0)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._closing.set()
        if kind is not None and issubclass(kind, KeyboardInterrupt):  # the second Ctrl-C: Ray's end ends the gangs
            return
        with suppress(RayLostError):  # the gangs have ended with Ray, and their threads see it
            call_with_retry(self._dispatcher.close)
        for thread in self._threads:
            thread.join(CLOSE_TIMEOUT_S)
        end_controllers(self._controllers)

    @property
    def broken(self) -> str | None:
        """Why a gang ended for good before it was told to; none while all is well."""
        return self._broken[0] if self._broken else None

    def _keep_up(self, spec: GangSpec) -> None:
        name, runs, strikes, before = f"gang-{spec.gang}", 0, 0, 0
        while not self._closing.is_set():
            try:
                reason = self._fit(spec, f"{name}-{runs}" if runs else name)
            except RayLostError as error:  # to start anew would write into Ray's store, and its end ends this process
                self._broken.append(str(error))
                return
            if self._closing.is_set():
                return
            runs += 1
            try:
                closed = call_with_retry(self._dispatcher.close_reason)
                trials = call_with_retry(self._dispatcher.trials_of, spec.gang)
            except (Exception, RayLostError) as error:
                closed, trials = f"{name} cannot reach the search: {in_a_line(error)}", before
            strikes, before = (0 if trials != before else strikes + 1), trials
            if closed is None and strikes >= MAX_STARTS:
                closed = f"{name} ended {strikes} times in a row without training: {reason}"
            if closed is not None:
                self._broken.append(closed)
                return
            log.warning("%s ended (%s): started anew", name, reason)

    def _fitting(self, slots: int) -> int:
        """Return the largest size that so many slots hold; the smallest, for which Ray waits, where none fits."""
        return max((size for size in self._sizes if size <= slots), default=self._sizes[0])

    def _fit(self, spec: GangSpec, name: str) -> str:
        if len(self._sizes) > 1:
            self._size = self._fitting(reachable(cluster_nodes()).fit(self.worker))
            self._moved = time.monotonic()
        try:
            self._trainer(spec, name).fit()
        except Exception as error:
            check_ray()
            return in_a_line(error)
        return "in order"

    def _trainer(self, spec: GangSpec, name: str) -> GangTrainer:
        # An elastic gang begins anew with another size rather than wait for what it has lost.
        limits = {"controller_failure_limit": 0} if len(self._sizes) > 1 else {"max_failures": -1}
        return GangTrainer(
            self._controllers,
            gang_loop,
            # By reference, so that the run's controller does not import what only workers need.
            train_loop_config={"spec": ray.put(spec), "dispatcher": self._dispatcher, "gang": spec.gang},
            backend_config=self._backend(),
            scaling_config=ScalingConfig(
                num_workers=self._size, use_gpu=self.worker.use_gpu, resources_per_worker=self.worker.for_ray
            ),
            run_config=RunConfig(name=name, storage_path=str(self._storage), failure_config=FailureConfig(**limits)),
        )

    def _backend(self) -> BackendConfig:
        """Return what starts the process group; a gang of one has none, and driver and controller do without torch."""
        if self._size == 1:
            return BackendConfig()
        from harness.gangs.network import NodeTorchConfig

        return NodeTorchConfig("nccl" if self.worker.use_gpu else "gloo")


class NodeMonitor:
    """Compares the cluster with what it was a moment ago. `check` is called often, from the driver's main thread."""

    def __init__(self, dispatcher: Any, pool: GangPool, list_nodes: Callable[[], ClusterNodes] = cluster_nodes) -> None:
        self._dispatcher, self._pool, self._list_nodes = dispatcher, pool, list_nodes
        self._looked, self._last = time.monotonic(), list_nodes()

    def check(self) -> None:
        """Take in what has changed, at most twice a second.

        Raises:
            RayLostError: nothing can be asked any more.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        if not check_ray():  # a question to a GCS that is gone would take a minute, and end this process
            return
        before, self._last = self._last, self._list_nodes()
        lost = sorted(before.ids - self._last.ids)
        if lost:
            log.warning("nodes lost: %s", ", ".join(node.address for node in before.nodes if node.id in lost))
            self._dispatcher.nodes_lost.remote(lost)
        leaving = sorted(self._last.leaving - before.leaving)
        if leaving:
            self._dispatcher.nodes_leaving.remote(leaving)
        self._pool.fit_to(self.slots)

    @property
    def held(self) -> dict[str, float]:
        """Devices that the gangs' workers held at the last look, by the card's name."""
        return self._last.held(self._pool.workers, self._pool.worker)

    @property
    def slots(self) -> int:
        """How many workers the cluster could hold at the last look."""
        return self._last.fit(self._pool.worker)
