"""The network interface by which the ranks of a gang reach each other, for Gloo and NCCL.

Gloo listens on the address that the host name resolves to, which Debian writes as 127.0.1.1, and NCCL on the first
interface it likes. The interface that carries the node's address in the Ray cluster is the one that the other nodes are
known to reach (gloo of torch 2.14: "Gloo connectFullMesh failed" between two hosts without this).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

SETTINGS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""What Gloo and NCCL read when a process group starts. What the user has set stays."""


def interface_of(address: str, interfaces: Mapping[str, Sequence[Any]] | None = None) -> str | None:
    """Return the name of the network interface that carries an IP address; none where no one does."""
    for name, addresses in (psutil.net_if_addrs() if interfaces is None else interfaces).items():
        if any(known.address.partition("%")[0] == address for known in addresses):  # IPv6 ends in %interface
            return name
    return None


def use_node_interface() -> None:
    """Choose the interface for this process, from the address of its node. Must run before the process group starts."""
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is None:
        return
    for setting in SETTINGS:
        os.environ.setdefault(setting, interface)


_TorchBackend: Any = TorchConfig().backend_cls


class NodeTorchBackend(_TorchBackend):  # type: ignore[misc]  # ray is untyped
    """Ray's process group, over the interfaces of the nodes' addresses."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Choose the interface on every worker, then start the group."""
        worker_group.execute(use_node_interface)
        super().on_start(worker_group, backend_config)


class NodeTorchConfig(TorchConfig):  # type: ignore[misc]  # ray is untyped
    """Ray's TorchConfig with `NodeTorchBackend`."""

    @property
    def backend_cls(self) -> Any:
        """What starts the process group."""
        return NodeTorchBackend
