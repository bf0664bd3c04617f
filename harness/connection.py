"""The connection to Ray: a session that is started here or joined, and its loss."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray._private import auto_init_hook, ray_constants, services
from ray._private.node import Node
from ray._raylet import GcsClient  # type: ignore[attr-defined]

from harness.signals import as_ctrl_c, handling
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
    # The controllers of all gangs share a process (`harness.gangs.controllers`).
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    # Tune's own files for each report, its progress tables, and its state that `s4` never resumes from.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Tune's look at the resources, which nothing here reads, would wait for a GCS that is gone.
    "TUNE_STATE_REFRESH_PERIOD": "1000000",
    # A failed trial's result has no objective.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Ctrl-C is handled by the search, which fails its trials in an orderly way.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
"""Settings of Ray, for the driver and for its workers. What the user has set stays."""
_QUIET: Mapping[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
SOCKETS_FOLDER_BYTES = 38
"""How long the path of the folder may be in which Ray 2.60 makes `ray/session_.../sockets/plasma_store`: 107 in all."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # a folder of a name that nobody can guess is made there
"""Where the session of a Ray lies that cannot lie where TMPDIR says, in this order."""
KNOCK_TIMEOUT_S = 3.0
"""How long a living node may take to accept a connection."""
JOIN_TIMEOUT_S = 5.0
"""How long a cluster's address may take to answer."""
GCS_PATIENCE_S = 45.0
"""How long the GCS of a cluster may be away before it counts as dead; Ray ends a driver after 60."""
RAYLET_ENDS_S = 2.0
"""How long after the death of what ran on a node its raylet may still seem alive."""
_away_since: float | None = None


@contextmanager
def ray_session(
    address: str = "local", *, cpus: int | None = None, say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Start Ray here, or join a cluster; on leaving, shut down only what was started here.

    Meanwhile SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, and Ray is not started by itself a second
    time. Within a session that is active already only the signals are changed.

    Args:
        address: `local` starts Ray on this machine; `HOST:PORT` joins that cluster; `auto` joins the cluster that this
            machine belongs to, and is `local` where there is none.
        cpus: CPUs that a local Ray believes in; none: as many as there are.
        say: told that Ray is being started or joined, which takes seconds.

    Raises:
        UsageError: there is no cluster at the address, it does not let us in, or there is no folder for a Ray here.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        with handling(as_ctrl_c):
            yield
        return
    cluster = _find_cluster() if address == "auto" else address
    starts_by_itself = auto_init_hook.enable_auto_connect
    if say is not None:
        say("starting Ray ..." if cluster == "local" else f"joining Ray at {cluster} ...")
    place = _session_folder() if cluster == "local" else nullcontext()
    with place as folder, handling(as_ctrl_c):  # puts back what `ray.init` changes
        if cluster == "local":
            _provide_token()
            options = {"num_cpus": cpus or os.cpu_count(), "include_dashboard": False, "_temp_dir": folder}
            with _apart(), _bare(), _on_loopback():
                ray.init(address="local", **options, **_QUIET)
        else:
            _join(cluster)
        auto_init_hook.enable_auto_connect = False
        try:
            with handling(as_ctrl_c):
                yield
        finally:
            leave_ray()
            auto_init_hook.enable_auto_connect = starts_by_itself


def _on_loopback() -> AbstractContextManager[None]:
    """Let Ray take the loopback interface for this machine's address, as it does by itself on macOS."""
    return _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False)


def _apart() -> AbstractContextManager[None]:
    """Let Ray's processes be started in sessions of their own: what ends the driver's group does not end them first.

    They end with the driver all the same, by the kernel's word; where Ray has none (macOS) they stay in its group.
    """
    if not sys.platform.startswith("linux"):
        return nullcontext()
    return _replaced(services, "ConsolePopen", functools.partial(services.ConsolePopen, start_new_session=True))


@contextmanager
def _bare() -> Iterator[None]:
    """Let Ray start no process that nothing here asks for, each a Python that imports half of Ray (2.60).

    The dashboard's API: Ray Train asks it only to clean up after a controller that died, and a search whose controller
    died ends at once. Its agent, which the raylet wants, is as small as where `ray[default]` is not installed. The
    autoscaler's monitor: there is one node. The log monitor: it brings workers' words to a driver, see `_QUIET`.
    """
    with ExitStack() as patches:
        for name in ("start_api_server", "start_monitor", "start_log_monitor"):
            patches.enter_context(_replaced(Node, name, lambda *_, **__: None))
        absent = ImportError("not wanted")
        patches.enter_context(_replaced(ray._private.utils, "get_dashboard_dependency_error", lambda: absent))
        yield


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class RayLostError(BaseException):
    """Ray is gone, and with it every gang. No `Exception`: what Tune does about those would wait for Ray."""


def ray_away() -> str | None:
    """Return what of the Ray that this driver is connected to refuses to answer; none where GCS and raylet answer.

    Workers are not drivers: they end with their raylet.
    """
    node = ray._private.worker._global_node
    if node is None or ray._private.worker.global_worker.mode != ray.SCRIPT_MODE:
        return None
    places = {"GCS": node.gcs_address, "raylet": f"{node.node_ip_address}:{node.node_manager_port}"}
    for name, place in places.items():
        host, _, port = place.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_TIMEOUT_S).close()
        except ConnectionRefusedError:
            return f"Ray's {name} at {place} died, its last words are in {node.get_logs_dir_path()}"
        except OSError:  # a network that is slow or cut off may come back
            continue
    return None


def check_ray() -> bool:
    """Return whether Ray answers. The GCS of a cluster that was joined may be started anew: it is given time.

    Raises:
        RayLostError: what died.
    """
    global _away_since
    away = ray_away()
    if away is None:
        _away_since = None
        return True
    _away_since = _away_since or time.monotonic()
    started_here = ray._private.worker._global_node.head
    if started_here or "raylet" in away or time.monotonic() - _away_since > GCS_PATIENCE_S:
        raise RayLostError(away)
    return False


def check_own_node() -> None:
    """Raise where what died here died with its raylet. One that ends in order answers for a while yet.

    Raises:
        RayLostError: what died.
    """
    node = ray._private.worker._global_node
    deadline = time.monotonic() + (RAYLET_ENDS_S if node is not None else 0.0)
    while check_ray() and time.monotonic() < deadline:
        own = ray.get_runtime_context().get_node_id()
        if not any(one["NodeID"] == own and one["Alive"] for one in ray.nodes()):
            raise RayLostError(f"Ray's raylet at {node.node_ip_address} ended, its last words are in "
                               f"{node.get_logs_dir_path()}")  # fmt: skip
        time.sleep(0.1)


def leave_ray() -> None:
    """Disconnect from Ray, and end what was started here.

    Ray 2.60 ends a driver whose parent is process 1, as in a container, at its next word to a raylet that is gone.
    Such a driver keeps its connection for as long as it has something to say.
    """
    if os.getppid() == 1 and "raylet" in (ray_away() or ""):
        atexit.register(lambda: (sys.stdout.flush(), sys.stderr.flush()))
    else:
        ray.shutdown()


def _provide_token() -> None:
    """Give a Ray that is started here its token, in a file that nobody else can read; Ray's own would be open to all.

    Where the home cannot be written the token is in the environment, for this session.
    """
    try:
        file = Path.home() / ".ray" / "auth_token"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(secrets.token_hex(32))
        elif os.access(file, os.R_OK) and file.stat().st_uid == os.getuid():
            with suppress(PermissionError):  # of a read-only file system
                file.chmod(0o600)
    except FileExistsError:  # by another driver, a moment ago
        pass
    except (OSError, RuntimeError):  # RuntimeError: nobody knows where the home is
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _session_folder() -> AbstractContextManager[str | None]:
    """Return where a Ray that is started here keeps its session and its sockets; none: where it does by itself.

    A scratch folder of a cluster's job may be too long for sockets, gone or somebody else's. Then it is a folder of our
    own, which goes with the session.

    Raises:
        UsageError: there is no folder for it.
    """
    named = os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", SHORT_FOLDERS[0]))
    if len(os.fsencode(os.path.abspath(named))) <= SOCKETS_FOLDER_BYTES and named:
        try:
            os.makedirs(os.path.join(named, "ray"), exist_ok=True)
            tempfile.TemporaryFile(dir=os.path.join(named, "ray")).close()
        except OSError:
            pass
        else:
            return nullcontext()
    for parent in SHORT_FOLDERS:
        try:
            return tempfile.TemporaryDirectory(prefix="s4-", dir=parent, ignore_cleanup_errors=True)
        except OSError:
            continue
    raise UsageError(
        f"Ray must have a folder that can be written, of at most {SOCKETS_FOLDER_BYTES} letters, for its sockets; got "
        f"{named!r}, and none of {', '.join(SHORT_FOLDERS)} can be written: set RAY_TMPDIR to one"
    )


def _find_cluster() -> str:
    # Not `ray.init(address="auto")`: that also joins a Ray that another program started for itself alone.
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
        with _on_loopback() if _only_on_loopback(address) else nullcontext():
            ray.init(address=address, **_QUIET)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"a Ray cluster must run at {address} and let this process in, but it does not ({reason}): "
            "check the port; a cluster with tokens wants RAY_AUTH_MODE=token here, and its token in RAY_AUTH_TOKEN or "
            "~/.ray/auth_token"
        ) from error
    except RuntimeError as error:
        if not str(error).startswith("Version mismatch"):
            raise
        ray.shutdown()
        versions = " ".join(str(error).partition(": ")[2].split())
        raise UsageError(f"the cluster at {address} must have this process's Ray and Python: {versions}; use its "
                         "environment, or --address local") from error  # fmt: skip


def _only_on_loopback(address: str) -> bool:
    """Return whether a Ray listens at no other address of this machine, where `ray.init` would look for it."""
    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        return False
    try:
        socket.create_connection((services.get_node_ip_address(), int(port)), timeout=JOIN_TIMEOUT_S).close()
    except OSError:
        return True
    return False


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
