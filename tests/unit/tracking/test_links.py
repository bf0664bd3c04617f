"""The pages of a search in MLflow, as `s4 ui` gives them."""

import os
from collections.abc import Sequence
from urllib.parse import unquote

import pytest
from recorded import Store, play

from harness.cli.main import run
from harness.tracking.stores import EXPERIMENT
from harness.tracking.views import experiment_link, search_links
from harness.trials import TrialState
from trainers.errors import UsageError


def test_a_search_has_a_page_of_its_own_and_a_table_of_its_runs(store: Store) -> None:
    with store.recorder() as recorder:
        play(recorder, 0, TrialState.COMPLETE)
    links = search_links(store.client, store.experiment, "search-001")
    parent = store.run("search-001").info
    assert links.parent == f"/#/experiments/{parent.experiment_id}/runs/{parent.run_id}"
    path, _, condition = unquote(links.runs).partition("?searchFilter=")
    assert path == f"/#/experiments/{parent.experiment_id}/runs"
    found = store.client.search_runs([parent.experiment_id], condition)
    assert {item.info.run_name for item in found} == {"search-001", "trial-000"}


def test_a_name_that_is_not_recorded_is_refused(store: Store) -> None:
    store.recorder().close()
    with pytest.raises(UsageError, match="other is not in experiment"):
        search_links(store.client, store.experiment, "other")


def test_without_an_experiment_all_are_shown(store: Store) -> None:
    assert experiment_link(store.client, "nothing yet").runs == "/#/experiments"


def test_the_command_prints_the_page_of_the_search_and_serves_it_on_this_machine_only(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Sequence[str]] = []
    monkeypatch.setattr(os, "execve", lambda _, words, environment: started.append(words))
    store.experiment = EXPERIMENT
    store.recorder(name="shown").close()
    assert run(["ui", "shown", "--tracking-uri", store.uri, "--port", "5917"]) == 0
    link = search_links(store.client, EXPERIMENT, "shown").parent
    assert f"open http://127.0.0.1:5917{link}\n" in capsys.readouterr().out
    [words] = started
    assert words[words.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize("name", ["x' or 1=1", "../x"])
def test_the_command_refuses_what_is_no_name(name: str, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ui", name, "--tracking-uri", store.uri, "--port", "5918"]) == 2
    assert "a name must be letters" in capsys.readouterr().err
