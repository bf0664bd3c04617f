"""A Ray session: started here or joined, its life and its loss, its nodes, the slots for workers."""

from __future__ import annotations

import atexit
import functools
import importlib.metadata
import logging
import os
import platform
import secrets
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.exceptions
from ray._private import auto_init_hook, ray_constants, services
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

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
JOIN_TIMEOUT_S = 5.0
"""How long a cluster's address may take to answer."""
GCS_PATIENCE_S = 45.0
"""How long the GCS of a cluster may be away before it counts as dead; Ray ends a driver after 60."""
_away_since: float | None = None


@contextmanager
def ray_session(address: str = "local", *, cpus: int | None = None) -> Iterator[None]:
    """Start Ray here, or join a cluster; on leaving, shut down only what was started here.

    Meanwhile SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, and Ray is not started by itself a second
    time. Within a session that is active already only the signals are changed.

    Args:
        address: `local` starts Ray on this machine; `HOST:PORT` joins that cluster; `auto` joins the cluster that this
            machine belongs to, and is `local` where there is none.
        cpus: CPUs that a local Ray believes in; none: as many as there are.

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
    place = _session_folder() if cluster == "local" else nullcontext()
    with place as folder, handling(as_ctrl_c):  # puts back what `ray.init` changes
        if cluster == "local":
            _provide_token()
            # No dashboard: it takes seconds of a start. Ray Train asks it only to clean up after a controller that
            # died, and a search whose controller died ends at once.
            options = {"num_cpus": cpus or os.cpu_count(), "include_dashboard": False, "_temp_dir": folder}
            with _apart():
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


@contextmanager
def _apart() -> Iterator[None]:
    """Let the Ray that is started here be this driver's alone.

    Its servers listen on the loopback interface, as Ray's do by themselves on macOS. Its processes are in sessions of
    their own: what ends the driver's group does not end them first. They end with the driver all the same, by the
    kernel's word; where Ray has none (macOS) they stay in its group.
    """
    popen, open_to_others = services.ConsolePopen, ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    if sys.platform.startswith("linux"):
        services.ConsolePopen = functools.partial(popen, start_new_session=True)
    try:
        yield
    finally:
        services.ConsolePopen, ray_constants.ENABLE_RAY_CLUSTER = popen, open_to_others


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


def check_fit(gangs: int, workers_per_gang: int, use_gpu: bool, resources: Mapping[str, float] | None = None) -> None:
    """Refuse gangs that the cluster could never hold all at once: the search would wait for ever.

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
        ray.init(address=address, **_QUIET)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"a Ray cluster must run at {address} and let this process in, but it does not ({reason}): "
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


PROGRAMS = ("s4-harness", "torch", "ray", "numpy")
"""Packages that must be of one version everywhere."""
SURVEY_TIMEOUT_S = 60.0
"""How long a node may take to start a process and answer."""
KNOCK_TIMEOUT_S = 3.0
"""How long a living node may take to accept a connection."""
VISIBLE_S = 10.0
"""How long a file may take to be seen on another node: network file systems cache what folders hold."""


@dataclass(frozen=True)
class Node:
    """A node that is alive."""

    id: str
    address: str
    resources: Mapping[str, float]
    leaving: bool = False
    """Whether it is being drained: it runs what it runs, and will be gone soon."""
    port: int = 0
    """At which its raylet listens."""


class ClusterNodes(NamedTuple):
    """The cluster's living nodes at one moment."""

    nodes: tuple[Node, ...]

    @property
    def ids(self) -> frozenset[str]:
        """Of the nodes."""
        return frozenset(node.id for node in self.nodes)

    @property
    def leaving(self) -> frozenset[str]:
        """Ids of the nodes that will be gone soon."""
        return frozenset(node.id for node in self.nodes if node.leaving)

    def slots(self, unit: str) -> int:
        """Return how many workers of one CPU or GPU each (`unit`) the nodes that stay can hold."""
        return sum(int(node.resources.get(unit, 0)) for node in self.nodes if not node.leaving)


def cluster_nodes() -> ClusterNodes:
    """Ask the cluster for its nodes; takes milliseconds."""
    draining = ray._private.state.state.get_draining_nodes()
    nodes = []
    for node in (node for node in ray.nodes() if node["Alive"]):
        name, address, port = node["NodeID"], node["NodeManagerAddress"], node["NodeManagerPort"]
        nodes.append(Node(name, address, node["Resources"], name in draining, port))
    return ClusterNodes(tuple(nodes))


def reachable(nodes: ClusterNodes) -> ClusterNodes:
    """Return the nodes whose raylets take a connection: Ray goes on believing in a node after its death."""
    return ClusterNodes(tuple(node for node in nodes.nodes if _answers(node)))


def _answers(node: Node) -> bool:
    try:
        socket.create_connection((node.address, node.port), timeout=KNOCK_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def check_nodes(folder: Path) -> None:
    """Refuse nodes that do not see the storage folder, or run other programs, before anything is trained.

    Nodes without CPUs for work are left out. One node alone needs no check.

    Raises:
        UsageError: which nodes, and what is different there.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in cluster_nodes().nodes if node.id != here and node.resources.get("CPU", 0) >= 1]
    if not others:
        return
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".seen-{uuid.uuid4().hex}"
    probe.write_text("")
    try:
        answers = {node.address: _ask(node, probe) for node in others}
        _refuse_silent(answers)
        found = {address: ray.get(answer) for address, answer in answers.items()}
    finally:
        for file in folder.glob(f"{probe.name}*"):
            file.unlink(missing_ok=True)
    blind = [address for address, answer in found.items() if not answer["sees"]]
    if blind:
        raise UsageError(
            f"all nodes must see the same folder {folder}, {_listed(blind)} cannot read or write this one's files "
            "there: give --storage a folder of a shared file system, mounted at the same path on every node"
        )
    ours = _programs()
    for address, answer in found.items():
        for name, version in ours.items():
            if answer["programs"][name] != version:
                raise UsageError(
                    f"all nodes must run the same {name}, {address} has {answer['programs'][name]} and this one "
                    f"{version}: install the same environment there"
                )


def _ask(node: Node, probe: Path) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(_answer).options(scheduling_strategy=strategy).remote(str(probe))


def _answer(probe: str) -> dict[str, Any]:
    path = Path(probe)
    deadline = time.monotonic() + VISIBLE_S
    while not (sees := path.exists()) and path.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    if sees:
        try:
            path.with_name(f"{path.name}-{uuid.uuid4().hex}").write_text("")
        except OSError:
            sees = False
    return {"sees": sees, "programs": _programs()}


def _programs() -> dict[str, str]:
    return {"Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PROGRAMS}}


def _refuse_silent(answers: Mapping[str, Any]) -> None:
    done, _ = ray.wait(list(answers.values()), num_returns=len(answers), timeout=SURVEY_TIMEOUT_S)
    silent = [address for address, answer in answers.items() if answer not in done]
    if silent:
        raise UsageError(
            f"all nodes must be able to start a Python process, {_listed(silent)} did not within {SURVEY_TIMEOUT_S:g} "
            "s: look at ray's logs there (/tmp/ray/session_latest/logs), or take the nodes out of the cluster"
        )


def _listed(addresses: list[str]) -> str:
    return ", ".join(sorted(addresses))


@dataclass(frozen=True)
class Slots:
    """What workers can be put on."""

    count: int
    unit: str
    """`CPU` or `GPU`."""


@dataclass(frozen=True)
class Allocation:
    """Gangs of workers, a CPU or a GPU each."""

    gangs: int = 1
    workers_per_gang: int = 1
    most_gangs: int = 0
    """Gangs are added up to this number where nodes join; 0: none is."""
    use_gpu: bool = False


def allocate(slots: Slots, workers: int, gangs: int | None, trials: int) -> Allocation:
    """Return gangs as wished, or as many as fit, more where nodes join; but no more than there are trials.

    Raises:
        UsageError: they do not fit.
    """
    most = trials if gangs is None else 0
    return Allocation(gang_count(slots, workers, gangs, trials), workers, most, slots.unit == "GPU")


def gang_count(slots: Slots, workers: int, wished: int | None, trials: int) -> int:
    """Return how many gangs to start: as wished, or as many as fit, but no more than there are trials.

    Raises:
        UsageError: they do not fit.
    """
    fit = slots.count // workers
    needed = (wished or 1) * workers
    if needed > slots.count:
        raise UsageError(
            f"gangs x workers must be at most the {slots.count} {slots.unit}s there are, got {wished or 1} x {workers} "
            f"= {needed}: lower --gangs or --workers-per-gang"
        )
    return min(wished or fit, trials)


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_slots() -> Slots:
    """Return this machine's GPUs, or its CPUs where it has none."""
    import torch

    gpus = torch.cuda.device_count()
    return Slots(gpus, "GPU") if gpus else Slots(cores(), "CPU")


def cluster_slots() -> Slots:
    """Return the GPUs of the cluster that was joined, or its CPUs where it has none."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    return Slots(gpus, "GPU") if gpus else Slots(int(resources.get("CPU", 0)), "CPU")
