"""How often controllers look after their gangs, and the environment of workers."""

from __future__ import annotations

import os

import pytest
from ray.train.v2._internal.execution.worker_group import state, worker_group

from harness.connection import ENVIRONMENT
from harness.gangs.controllers import Controllers, environment, look_every

NAME = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"


@pytest.fixture(autouse=True)
def as_in_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def test_few_gangs_are_looked_after_twice_a_second_and_many_less_often() -> None:
    assert [float(look_every(gangs)[NAME]) for gangs in (1, 50, 512)] == [0.5, 0.5, 5.12]


def test_no_controller_sets_up_logging_while_another_writes_to_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    # Logging is configured under its lock and then its handlers'; a log is opened the other way round.
    for module, name in ((worker_group, "SynchronizationActor"), (state, "_shutdown_sync_actor")):
        monkeypatch.setattr(module, name, None)
    name = "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING"
    monkeypatch.setenv(name, "1")
    Controllers({name: "1"})
    assert os.environ[name] == "0"
    assert environment() == {}


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "2")
    assert look_every(512) == {}


def test_workers_have_an_environment_of_their_own_only_where_the_user_has_set_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert environment() == {}  # so that a process that Ray keeps in readiness can be one
    monkeypatch.setenv("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", "60")
    assert environment() == {"env_vars": {"RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "60"}}
