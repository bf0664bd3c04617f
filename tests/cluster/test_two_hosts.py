"""Commands on a Ray cluster of two hosts, whose names resolve to loopback addresses as Debian writes them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import mlflow
from commands import settings, start
from hosts import ONPREM, Host, Hosts
from reference.tiny import differences

from harness.run_folder import LATEST
from trainers.checkpoint import load_checkpoint

DASHBOARD_PORT = 8265
LISTEN, LOOPBACK = "0A", "0100007F"
"""As /proc/net/tcp writes them."""
SHORT = settings(schedule__steps=20, schedule__evaluate_every=10)


def train_here(folder: Path) -> None:
    """Train on two ranks of this machine, without Ray."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    group = {**os.environ, **address, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "trainers", *SHORT, "--out", str(folder)]
    ranks = [subprocess.Popen(words, env={**group, "RANK": str(rank)}) for rank in range(2)]
    assert [rank.wait(120) for rank in ranks] == [0, 0]


def test_a_training_crosses_the_hosts_and_is_the_same_as_on_one(two_hosts: Hosts, folder: Path) -> None:
    before = [host.sent_bytes() for host in two_hosts.all]
    start(two_hosts[1], two_hosts, "train", "across", folder, ["--workers", "2", *SHORT]).wait()
    sent = [host.sent_bytes() - was for host, was in zip(two_hosts.all, before, strict=True)]
    train_here(folder / "here")
    across, here = (load_checkpoint(folder / name / LATEST) for name in ("across", "here"))
    assert across["step"] == here["step"] == 20
    assert differences(across, here) == []
    assert min(sent) > 20 * 4 * 100_000  # twenty steps of gradients went each way


def test_only_the_driver_needs_the_tracking_store(two_hosts: Hosts, folder: Path) -> None:
    hidden = folder / "driver-only"
    hidden.mkdir()
    command = ["mount", "-t", "tmpfs", "tmpfs", str(hidden)]
    two_hosts[1].run(*command)  # the other host sees an empty folder where the store is
    uri = f"sqlite:///{hidden}/mlflow.db"
    search = start(
        two_hosts[0], two_hosts, "tune", "tracked", folder,
        ["--trials", "4", "--tracking-uri", uri, *settings(schedule__steps=40, schedule__evaluate_every=20)],
    )  # fmt: skip
    said = search.wait()
    two_hosts[1].run("umount", hidden)
    assert "2 gangs x 1 worker = 2 of 2 CPUs" in said
    assert {trial for trial, _ in search.reports()} == {0, 1, 2, 3}
    client = mlflow.MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 's4'")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.status for run in runs if "mlflow.parentRunId" in run.data.tags) != []
    assert len(runs) == 5
    assert "RUNNING" not in {run.info.status for run in runs}


def test_scaling_is_measured_over_the_hosts_from_any_of_them(two_hosts: Hosts, folder: Path) -> None:
    said = two_hosts[1].run(
        "s4", "scale", "--workers", "1,2", "--repeats", "1", "--steps", "2", "--blocks", "1", "--warmup", "2", "--json",
        "--address", two_hosts.address, "--storage", folder, "--tracking-uri", f"sqlite:///{folder}/mlflow.db",
        cwd=folder,
    ).stdout  # fmt: skip
    alone, both = json.loads(said)["points"]
    assert (alone["workers"], both["workers"]) == (1, 2)
    assert alone["bytes_per_step"] == 0
    assert both["bytes_per_step"] == sum(both["bytes_expected"].values()) > 800_000
    assert 0 < both["efficiency"] < 2


def test_storage_that_is_not_shared_is_refused_with_the_node(two_hosts: Hosts, folder: Path) -> None:
    apart = folder / "apart"
    apart.mkdir()
    two_hosts[1].run("mount", "-t", "tmpfs", "tmpfs", apart)
    refused = two_hosts[0].run(
        "s4", "train", "--address", two_hosts.address, "--storage", apart, "--workers", "2", *SHORT,
        check=False, cwd=folder,
    )  # fmt: skip
    two_hosts[1].run("umount", apart)
    assert refused.returncode == 2
    said = refused.stderr.strip().splitlines()[-1]
    assert "all nodes must see the same folder" in said
    assert two_hosts[1].address in said
    assert two_hosts[0].address not in said


def outsider(cluster: Hosts, token: str | None) -> Host:
    host = cluster.add(1, token=False)
    host.environment = {"RAY_NUM_REDIS_GET_RETRIES": "2"}  # of 20, a second apart
    if token is not None:
        (host.home / ".ray" / "auth_token").write_text(token)
    return host


def test_a_node_without_the_token_is_refused(two_hosts: Hosts) -> None:
    stranger = outsider(two_hosts, None)
    refused = stranger.run(ONPREM, "join", two_hosts.address, "--address", stranger.address, check=False)
    assert refused.returncode == 2
    assert "the cluster's token must be in" in refused.stderr


def test_a_node_with_another_token_is_refused(two_hosts: Hosts) -> None:
    stranger = outsider(two_hosts, "0" * 64)
    refused = stranger.run(ONPREM, "join", two_hosts.address, "--address", stranger.address, check=False)
    assert refused.returncode != 0
    nodes = two_hosts[0].run("ray", "status").stdout
    assert stranger.address not in nodes


def test_a_driver_without_the_token_is_refused(two_hosts: Hosts, folder: Path) -> None:
    token = two_hosts[1].home / ".ray" / "auth_token"
    kept = token.read_text()
    token.write_text("1" * 64)
    try:
        refused = two_hosts[1].run(
            "s4", "train", "--address", two_hosts.address, "--storage", folder, *SHORT, check=False, cwd=folder
        )
    finally:
        token.write_text(kept)
    assert refused.returncode == 2
    assert "a cluster with tokens wants" in refused.stderr.strip().splitlines()[-1]


def test_the_dashboard_listens_on_the_heads_loopback_only(two_hosts: Hosts) -> None:
    table = two_hosts[0].run("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout
    sockets = [line.split() for line in table.splitlines() if ":" in line]
    listening = [socket[1].split(":") for socket in sockets if socket[3] == LISTEN]
    assert [address for address, port in listening if int(port, 16) == DASHBOARD_PORT] == [LOOPBACK]
