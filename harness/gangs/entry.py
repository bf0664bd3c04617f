"""Where every worker of a gang begins; light to import, so that a driver does without torch."""

from __future__ import annotations

from typing import Any


def gang_loop(config: dict[str, Any]) -> None:
    """Be a worker until the search is over. `config` holds a reference to a `GangSpec`."""
    import ray

    from harness.gangs.worker import train_trials

    train_trials(ray.get(config["spec"]))
