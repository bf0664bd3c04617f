"""Calls of the Dispatcher's actor, which may die and be started anew by Ray."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.connection import check_ray, leave_ray, ray_away
from harness.gangs.dispatcher import Dispatcher

PATIENCE_S = 60.0
"""How long a restart of the actor may take; it is one process that imports little."""
PAUSE_S = 0.5


def start_dispatcher(max_trial_retries: int, hang_timeout_s: float | None = None) -> Any:
    """Start the Dispatcher as an actor beside the driver: it must live exactly as long as the search."""
    on_this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_concurrency=10_000, max_restarts=-1)(Dispatcher)
    return actor.options(scheduling_strategy=on_this_node).remote(max_trial_retries, hang_timeout_s, kill_worker)


def kill_worker(worker: Any) -> None:
    """End a gang's process at once, whatever it is doing."""
    with contextlib.suppress(Exception):  # it may be gone already
        ray.kill(worker, no_restart=True)


def end_dispatcher(dispatcher: Any) -> None:
    """End the actor. Where Ray is gone the connection is closed instead: Ray would end this process soon."""
    if ray_away() is None:
        ray.kill(dispatcher)
    else:
        leave_ray()


def call_with_retry(method: Any, *arguments: Any) -> Any:
    """Call a method of the Dispatcher that may be called twice; where the actor dies, call its successor.

    Raises:
        RayActorError: it did not come back.
        RayLostError: nor will it, Ray is gone.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = method.remote(*arguments)
            while not ray.wait([answer], timeout=PAUSE_S)[0]:
                check_ray()
            return ray.get(answer)
        except RayActorError:
            check_ray()
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_S)
