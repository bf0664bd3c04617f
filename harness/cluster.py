"""Ray, started for one command or joined where it runs already."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from trainers.errors import UsageError

ENVIRONMENT: Mapping[str, str] = {
    # Workers keep their folder: paths that a user gave stay what they mean.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # How often a gang's controller looks after its workers: the time to notice a death, and to end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Gangs neither report through Ray Train nor watch its metrics; each of these is a process or a thread a gang.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Tune's own files for each report, its progress tables, and its state that `s4` never resumes from.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # A failed trial's result has no objective.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Ctrl-C is handled by the search, which fails its trials in an orderly way.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
"""Settings of Ray, for the driver and for its workers. What the user has set stays."""


JOIN_TIMEOUT_S = 5.0
"""How long a cluster's address may take to answer."""


@contextmanager
def ray_session(address: str = "local", *, cpus: int | None = None) -> Iterator[None]:
    """Start Ray here, or join a cluster; on leaving, shut down only what was started here.

    Within a session that is active already this does nothing.

    Args:
        address: `local` starts Ray on this machine; `HOST:PORT` joins that cluster; `auto` joins the cluster that this
            machine belongs to, and is `local` where there is none.
        cpus: CPUs that a local Ray believes in; none: as many as there are.

    Raises:
        UsageError: there is no cluster at the address, or it does not let us in.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    cluster = _find_cluster() if address == "auto" else address
    if cluster == "local":
        # No dashboard: it takes seconds of a start. Ray Train asks it only to clean up after a controller that died,
        # and a search whose controller died ends at once.
        ray.init(address="local", num_cpus=cpus or os.cpu_count(), include_dashboard=False, **_QUIET)
    else:
        _join(cluster)
    try:
        yield
    finally:
        ray.shutdown()


def check_fit(gangs: int, workers_per_gang: int, use_gpu: bool, resources: Mapping[str, float] | None = None) -> None:
    """Refuse gangs that the cluster could never hold all at once: the search would wait for ever.

    Args:
        resources: the cluster's CPUs and GPUs; none: those of the active session.

    Raises:
        UsageError: with the numbers.
    """
    here = ray.cluster_resources() if resources is None else resources
    workers = gangs * workers_per_gang
    for resource in ("CPU", "GPU") if use_gpu else ("CPU",):
        have = int(here.get(resource, 0))
        if workers > have:
            raise UsageError(
                f"{gangs} gangs of {workers_per_gang} need {workers} {resource}s, the cluster has {have}: "
                "use fewer gangs or workers per gang, or a larger cluster"
            )


def _find_cluster() -> str:
    """Return the address of the cluster that this machine belongs to, or `local`.

    Not `ray.init(address="auto")`: that also joins a Ray that another program started for itself alone.
    """
    named = os.environ.get("RAY_ADDRESS")
    if named:
        return named
    recorded = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"  # noqa: S108  # by `ray start`
    try:
        address = recorded.read_text().strip()
        _check_reachable(address)
    except (OSError, UsageError):
        return "local"  # no record, or that of a cluster that is gone
    return address


def _join(address: str) -> None:
    _check_reachable(address)
    try:
        GcsClient(address=address)  # refused at once, where `ray.init` of Ray 2.60 tries 20 times in half a minute
        ray.init(address=address, **_QUIET)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise UsageError(
            f"a Ray cluster must run at {address} and let this process in, but it does not ({_first_line(error)}): "
            "check the port; a cluster with tokens wants RAY_AUTH_MODE=token here, and its token in RAY_AUTH_TOKEN or "
            "~/.ray/auth_token"
        ) from error


def _check_reachable(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"an address must be local, auto or HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=JOIN_TIMEOUT_S).close()
    except OSError as error:
        raise UsageError(
            f"a Ray cluster must run at {address}, but nothing answers there ({error}): start one with "
            "`ray start --head`, or use --address local"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


_QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
