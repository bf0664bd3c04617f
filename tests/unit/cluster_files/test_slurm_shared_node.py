"""A node that jobs share starts a Ray of the job's own size, on the job's own ports."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from cluster_paths import CLUSTER

SCRIPT = CLUSTER / "slurm" / "ray-on-shared-node.sh"
HEAD = "10.0.0.1:10070"


def started(folder: Path, node: int, **environment: str) -> list[str]:
    """Return the words that Ray is started with on a node."""
    fake = folder / "ray"
    fake.write_text('#!/bin/sh\nif [ "$1" = start ]; then echo "$@"; fi\n')
    fake.chmod(0o755)
    settings = {"SLURM_CPUS_PER_TASK": "8", "SLURM_NODEID": str(node), "S4_PORT": "10070", **environment}
    clean = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [SCRIPT, HEAD], env={**clean, "PATH": f"{folder}:{os.environ['PATH']}", **settings}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.parametrize(("devices", "count"), [("", 0), ("NoDevFiles", 0), ("3", 1), ("0,1,5", 3)])
def test_ray_takes_the_gpus_of_the_job_and_no_other(tmp_path: Path, devices: str, count: int) -> None:
    assert f"--num-gpus={count}" in started(tmp_path, 0, CUDA_VISIBLE_DEVICES=devices)


def test_a_job_without_gpus_takes_none(tmp_path: Path) -> None:
    assert "--num-gpus=0" in started(tmp_path, 1)


@pytest.mark.parametrize("node", [0, 1])
def test_ray_takes_the_cpus_of_the_job_and_ends_with_its_step(tmp_path: Path, node: int) -> None:
    assert {"--num-cpus=8", "--block"} <= set(started(tmp_path, node))


def test_the_first_node_is_the_head_on_ports_of_the_job(tmp_path: Path) -> None:
    words = started(tmp_path, 0)
    ports = {"--port=10070", "--ray-client-server-port=10071", "--dashboard-port=10072"}
    assert ports | {"--head", "--node-ip-address=10.0.0.1", "--dashboard-host=127.0.0.1"} <= set(words)


def test_the_others_join_it(tmp_path: Path) -> None:
    words = started(tmp_path, 1)
    assert f"--address={HEAD}" in words
    assert "--head" not in words


@pytest.mark.parametrize("node", [0, 1])
def test_no_port_is_rays_default(tmp_path: Path, node: int) -> None:
    # Those would be the same for two Rays on one node.
    free = {"--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"}
    assert free <= set(started(tmp_path, node))
