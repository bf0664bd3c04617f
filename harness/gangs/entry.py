"""Where every worker of a gang begins; light to import, so that a driver does without torch."""

from __future__ import annotations

import time
from typing import Any

from harness.start import process_began


def gang_loop(config: dict[str, Any]) -> None:
    """Be a worker until the search is over.

    Args:
        config: `spec`, a reference to a `GangSpec`; beside it `dispatcher` and `gang`, should it not be readable here.
    """
    stamps = {"process": process_began(), "group": time.time()}
    import ray

    from harness.gangs.client import call_with_retry

    try:
        spec = ray.get(config["spec"])
    except Exception as error:  # the module of an own trainer, say, is not on this process's path
        first = ray.train.get_context().get_world_rank() == 0
        if first and not call_with_retry(config["dispatcher"].start_gang, config["gang"]):
            return
        why = str(error).strip().rpartition("\n")[2].strip()
        why = f"{why}: workers must be able to import what the experiment is made of, as by PYTHONPATH"
        call_with_retry(config["dispatcher"].ail, config["gang"], why)
        raise
    from harness.gangs.worker import train_trials

    train_trials(spec, stamps | {"worker": time.time()})
