"""The nodes of the cluster: who is there, who is leaving, and whether all of them see the same storage and programs."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainers.errors import UsageError

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


class Census(NamedTuple):
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


def census() -> Census:
    """Ask the cluster for its nodes; takes milliseconds."""
    draining = ray._private.state.state.get_draining_nodes()
    return Census(
        tuple(
            Node(
                node["NodeID"],
                node["NodeManagerAddress"],
                node["Resources"],
                node["NodeID"] in draining,
                node["NodeManagerPort"],
            )
            for node in ray.nodes()
            if node["Alive"]
        )
    )


def answering(nodes: Census) -> Census:
    """Return the nodes whose raylets take a connection: Ray goes on believing in a node after its death."""
    return Census(tuple(node for node in nodes.nodes if _answers(node)))


def _answers(node: Node) -> bool:
    try:
        socket.create_connection((node.address, node.port), timeout=KNOCK_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def check_nodes(folder: Path) -> None:
    """Refuse nodes that do not see the storage folder, or run other programs, before anything is trained.

    Nodes without CPUs for work are left out. One node alone needs no check.

    Args:
        folder: absolute; made if it does not exist.

    Raises:
        UsageError: which nodes, and what is different there.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in census().nodes if node.id != here and node.resources.get("CPU", 0) >= 1]
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
    """Say what this node sees and runs."""
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
