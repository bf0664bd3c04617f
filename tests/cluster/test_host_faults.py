"""Hosts that die, are cut off, slow down, say that they will leave, or join, while something is trained on them.

All on one Ray cluster, whose hosts are booted anew where a test before has lost them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import TIMEOUT_S, Command, settings, start
from hosts import Host, Hosts, hosts, wait_for

pytestmark = pytest.mark.timeout(600)  # a busy machine takes minutes to start workers twice
EVERY = 10
TRAINING = settings(schedule__steps=120, schedule__evaluate_every=EVERY)
"""About ten seconds on two hosts."""


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts: a head without CPUs for work, for the driver, and two of one CPU each."""
    with hosts(tmp_path_factory.mktemp("hosts"), [0, 1, 1]) as made:
        made.start_head("--no-dashboard")
        yield made


@pytest.fixture
def cluster(booted: Hosts) -> Hosts:
    """The three hosts in one Ray cluster."""
    booted.gather(booted.all[1:])
    return booted


@pytest.fixture
def smaller(booted: Hosts) -> Hosts:
    """The same without the last host, which is up, but has not joined."""
    booted.gather(booted.all[1:2])
    booted[2].kill()
    booted[2].boot()
    return booted


def train(cluster: Hosts, folder: Path, workers: str) -> Command:
    options = ["--workers", workers, *TRAINING]
    return start(cluster.head, cluster, "train", "training", folder, options)


def check_training(training: Command) -> str:
    """Check that the training came to its end, each report made once; return what it said."""
    said = training.wait()
    assert [step for _, step in training.reports()] == list(range(EVERY, 121, EVERY))
    assert "COMPLETE" in said
    return said


def check_repeated(training: Command, killed_at: int) -> None:
    """Check that a checkpoint was there that is at most one interval older than the last report before the fault."""
    assert training.saved_step() >= killed_at - EVERY


def last_step(training: Command) -> int:
    return max(step for _, step in training.reports())


def test_an_elastic_training_goes_on_with_what_is_left_of_the_hosts(cluster: Hosts, folder: Path) -> None:
    training = train(cluster, folder, "1:2")
    training.wait_for_reports(3)
    at = last_step(training)
    cluster[2].kill()
    check_repeated(training, at)
    check_training(training)


def test_an_elastic_training_takes_in_a_host_that_joins(smaller: Hosts, folder: Path) -> None:
    endless = settings(schedule__steps=100_000, schedule__evaluate_every=EVERY)
    training = start(smaller.head, smaller, "train", "training", folder, ["--workers", "1:2", *endless])
    training.wait_for_reports(2)
    joined = smaller[2]
    smaller.join(joined)
    sent = joined.sent_bytes()
    wait_for(lambda: joined.sent_bytes() - sent > 20_000_000, "gradients from the host that joined", TIMEOUT_S)
    seen = len(training.reports())
    training.wait_for_reports(seen + 3)
    steps = [step for _, step in training.reports()]
    training.kill()
    assert steps == sorted(set(steps))


def test_a_fixed_training_waits_until_a_host_is_back(cluster: Hosts, folder: Path) -> None:
    training = train(cluster, folder, "2")
    training.wait_for_reports(3)
    at = last_step(training)
    cluster[2].kill()
    check_repeated(training, at)
    cluster[2].boot()
    cluster.join(cluster[2])
    check_training(training)


def check_search(search: Command, trials: int) -> str:
    """Check that all trials came to an end that is none of the fault's, and that nothing is left open."""
    said = search.wait()
    ends = {event["trial"]: event["state"] for event in search.events() if event["event"] == "end"}
    assert len(ends) == trials
    assert set(ends.values()) <= {"COMPLETE", "PRUNED"}
    reports = search.reports()
    assert len(reports) == len(set(reports))  # no report twice
    return said


def tune(cluster: Hosts, folder: Path, trials: int, steps: int) -> Command:
    lengths = settings(schedule__steps=steps, schedule__evaluate_every=EVERY)
    return start(
        cluster.head, cluster, "tune", "search", folder, ["--trials", str(trials), "--scheduler", "none", *lengths]
    )


def test_a_search_loses_a_host_and_the_other_gang_trains_its_trial(cluster: Hosts, folder: Path) -> None:
    search = tune(cluster, folder, 4, 60)
    search.wait_for_reports(2, trials=2)
    cluster[2].kill()
    said = check_search(search, 4)
    assert "4 complete" in said


def test_a_search_puts_gangs_on_a_host_that_joins(smaller: Hosts, folder: Path) -> None:
    search = tune(smaller, folder, 6, 120)
    search.wait_for_reports(2)
    smaller.join(smaller[2])
    check_search(search, 6)
    running, most = set[int](), 0
    for event in search.events():
        if event["event"] == "start":
            running.add(event["trial"])
        elif event["event"] == "end":
            running.discard(event["trial"])
        most = max(most, len(running))
    assert most == 2


def test_a_host_that_is_cut_off_and_back_loses_no_trial(cluster: Hosts, folder: Path) -> None:
    search = tune(cluster, folder, 4, 60)
    search.wait_for_reports(2, trials=2)
    cluster[2].cut()
    seen = len(search.reports())
    search.wait_for_reports(seen + 4)  # the other gang does not notice
    cluster[2].mend()
    check_search(search, 4)


@pytest.mark.long
def test_a_training_over_a_slow_link_comes_to_its_end(cluster: Hosts, folder: Path) -> None:
    cluster[1].slow(50)
    try:
        training = train(cluster, folder, "2")
        check_training(training)
    finally:
        cluster[1].quicken()


@pytest.mark.long
def test_a_host_that_will_leave_has_its_trial_saved_before_its_next_report(cluster: Hosts, folder: Path) -> None:
    long = settings(schedule__steps=3000, schedule__evaluate_every=1500)
    training = start(cluster.head, cluster, "train", "training", folder, ["--workers", "2", *long])
    node = node_id(cluster, cluster[1])
    wait_for(lambda: cluster[1].sent_bytes() > 40_000_000, "gradients", TIMEOUT_S)
    assert not (training.folder / "latest.pt").exists()
    cluster.head.run(
        "ray", "drain-node", "--address", cluster.address, "--node-id", node,
        "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "60",
    )  # fmt: skip
    wait_for((training.folder / "latest.pt").exists, "a checkpoint", 30)
    assert 0 < training.saved_step() < 1500
    assert training.reports() == []
    training.kill()
    cluster[1].kill()  # it has left the cluster


def node_id(cluster: Hosts, host: Host) -> str:
    program = (
        f"import ray, json; ray.init('{cluster.address}', log_to_driver=False); "
        "print('NODES', json.dumps({n['NodeManagerAddress']: n['NodeID'] for n in ray.nodes() if n['Alive']}))"
    )
    said = cluster.head.run("python", "-c", program).stdout
    line = next(line for line in said.splitlines() if line.startswith("NODES"))
    return str(json.loads(line.removeprefix("NODES"))[host.address])
