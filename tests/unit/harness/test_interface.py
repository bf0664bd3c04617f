from __future__ import annotations

import os
from typing import NamedTuple

import pytest
import ray

from harness.gangs.network import SETTINGS, interface_of, use_node_interface


class Address(NamedTuple):
    address: str


INTERFACES = {
    "lo": [Address("127.0.0.1"), Address("::1")],
    "eth0": [Address("10.0.0.7"), Address("fe80::1%eth0"), Address("02:fc:00:00:00:01")],
    "ib0": [Address("192.168.7.7"), Address("fd00::7")],
}


@pytest.mark.parametrize(
    ("address", "interface"),
    [("10.0.0.7", "eth0"), ("192.168.7.7", "ib0"), ("fd00::7", "ib0"), ("fe80::1", "eth0"), ("10.0.0.70", None)],
)
def test_the_interface_is_the_one_that_carries_the_address(address: str, interface: str | None) -> None:
    assert interface_of(address, INTERFACES) == interface


@pytest.fixture
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.setenv(setting, "")  # so that it is put back
        monkeypatch.delenv(setting)


def test_both_libraries_are_told_the_nodes_interface(no_choice: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    use_node_interface()
    assert [os.environ[setting] for setting in SETTINGS] == ["lo", "lo"]


def test_what_the_user_chose_stays(no_choice: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    use_node_interface()
    assert [os.environ[setting] for setting in SETTINGS] == ["lo", "ib0"]
