"""One process for the controllers of all gangs, where Ray Train 2.60 starts three for each gang.

A controller's own actor, an actor for collectives of `ray.train.report`, which gangs do not call, and a request to the
autoscaler, which the gang's placement group makes as well: on the driver's node each costs every start two seconds of a
processor and holds 100 MB.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.train.v2._internal.constants import (
    ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR,
    HEALTH_CHECK_INTERVAL_S_ENV_VAR,
    get_env_vars_to_propagate,
)
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, state, worker_group
from ray.train.v2.api.result import Result
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.connection import ENVIRONMENT, ray_away

MOST_AT_ONCE = 4096
"""Gangs of one search; each has a thread here, which is started when it is needed."""
LOOK_S = 0.01
"""Time that a look at a gang may take of the process, on average, so that it stays idle most of the time."""


class GangScaling(FixedScalingPolicy):  # type: ignore[misc]  # ray is untyped
    """A number of workers, and no word to an autoscaler."""

    def _maybe_send_resource_request(self) -> None: ...

    def _send_resource_request(self) -> None: ...

    def after_controller_start(self, train_run_context: Any) -> None:
        """Start no coordinator."""


class GangWorkers(WorkerGroup):  # type: ignore[misc]
    """Workers without an actor for their reports, on processes that Ray keeps in readiness where there are some."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> dict[str, Any]:
        # An environment of its own, were it empty of news, would need a process of its own.
        return environment() | dict(custom_runtime_env)


class GangController(TrainController):  # type: ignore[misc]
    """Ray Train's controller, with such workers."""

    worker_group_cls = GangWorkers


class NoSynchronization:
    """Stands where Ray Train has the actor for collectives: gangs have none of them."""

    @classmethod
    def options(cls, **_: object) -> type[NoSynchronization]:
        """Return the class, as an actor's does."""
        return cls

    @classmethod
    def remote(cls, **_: object) -> str:
        """Return what workers are told of it."""
        return "none"


class Controllers:
    """Actor beside the driver: runs a controller a gang, each in a thread of its own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._up = time.time()
        os.environ.update(environment)
        # Each controller would set up logging anew, which deadlocks with another that writes to the log meanwhile.
        os.environ[ENABLE_CONTROLLER_STRUCTURED_LOGGING_ENV_VAR] = "0"
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE)
        worker_group.SynchronizationActor = NoSynchronization
        state._shutdown_sync_actor = lambda _: None

    async def introduce(self, dispatcher: Any) -> None:
        """Tell the Dispatcher since when this process is up."""
        dispatcher.note_start.remote({"controllers": self._up})

    async def run(self, options: Mapping[str, Any]) -> Result:
        """Run a controller with Ray Train's options to its end."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _run, options)


def _run(options: Mapping[str, Any]) -> Result:
    controller = GangController(**options)
    asyncio.run(controller.run())
    return controller.get_result()


def start_controllers(gangs: int, dispatcher: Any) -> Any:
    """Start the process; where it dies, Ray starts it anew, and the gangs are started anew by their pool.

    It tells the Dispatcher when it is up. Each controller looks after its workers every half second; those of many
    gangs, which share a processor, less often.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_concurrency=MOST_AT_ONCE, max_restarts=-1)(Controllers)
    controllers = actor.options(scheduling_strategy=here).remote(get_env_vars_to_propagate() | look_every(gangs))
    controllers.introduce.remote(dispatcher)  # as an argument of the constructor Ray warns that it may be lost
    return controllers


def look_every(gangs: int) -> dict[str, str]:
    """Return the setting of how often workers are looked after; {} where the user has set it."""
    if os.environ.get(HEALTH_CHECK_INTERVAL_S_ENV_VAR) != ENVIRONMENT[HEALTH_CHECK_INTERVAL_S_ENV_VAR]:
        return {}
    return {HEALTH_CHECK_INTERVAL_S_ENV_VAR: str(max(0.5, LOOK_S * gangs))}


def end_controllers(controllers: Any) -> None:
    """End the process; where Ray is gone it ends by itself."""
    if ray_away() is None:
        ray.kill(controllers)


def environment() -> dict[str, Any]:
    """Return the environment of a worker: what the user has set for Ray Train; {} where that is nothing."""
    given = {name: value for name, value in get_env_vars_to_propagate().items() if name not in ENVIRONMENT}
    return {"env_vars": given} if given else {}
