"""The pages of a search in MLflow, as `s4 ui` gives them."""

import os
from collections.abc import Sequence
from urllib.parse import unquote

import pytest
from recorded import Store, play

from harness.cli.main import run
from harness.tracking.pages import TRAINING, experiment_link, search_links
from harness.tracking.views import Chart, What, view_key
from harness.trials import TrialState
from trainers.errors import UsageError


def test_a_search_has_a_page_of_its_own_and_a_table_of_its_runs(store: Store) -> None:
    with store.recorder() as recorder:
        play(recorder, 0, TrialState.COMPLETE)
    links = search_links(store.client, "search-001")
    parent = store.run("search-001").info
    assert links["open"] == f"/#/experiments/{parent.experiment_id}/runs/{parent.run_id}?{TRAINING}"
    path, _, condition = unquote(links["runs"].removesuffix(f"&{TRAINING}")).partition("?searchFilter=")
    assert path == f"/#/experiments/{parent.experiment_id}/runs"
    found = store.client.search_runs([parent.experiment_id], condition)
    assert {item.info.run_name for item in found} == {"search-001", "trial-000"}


@pytest.mark.parametrize(("view", "names"), [("runs", ["open", "runs", "curves"]),
                                             ("variants", ["open", "runs", "variants"])])  # fmt: skip
def test_prepared_views_are_named_by_what_they_show(view: What, names: list[str], store: Store) -> None:
    with store.recorder(name=view) as recorder:
        recorder.view(view, "tags.`s4.kind` = 'trial'", "dev/miou", [Chart("dev/miou", "LINE")])
    links = search_links(store.client, view)
    assert list(links) == names
    assert f"viewStateShareKey={view_key(view, view)}" in links[names[-1]]
    assert all(link.endswith(TRAINING) for link in links.values())


def test_a_name_that_is_not_recorded_is_refused(store: Store) -> None:
    store.recorder().close()
    with pytest.raises(UsageError, match="other is not in sqlite"):
        search_links(store.client, "other")


def test_without_an_experiment_all_are_shown(store: Store) -> None:
    assert experiment_link(store.client, "nothing yet") == {"open": f"/#/experiments?{TRAINING}"}


def test_the_command_prints_the_page_of_the_search_and_serves_it_on_this_machine_only(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Sequence[str]] = []
    monkeypatch.setattr(os, "execve", lambda _, words, environment: started.append(words))
    store.recorder(name="shown").close()
    assert run(["ui", "shown", "--tracking-uri", store.uri, "--port", "5917"]) == 0
    link = search_links(store.client, "shown")["open"]
    assert f"open http://127.0.0.1:5917{link}\n" in capsys.readouterr().out
    [words] = started
    assert words[words.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize("name", ["x' or 1=1", "../x"])
def test_the_command_refuses_what_is_no_name(name: str, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ui", name, "--tracking-uri", store.uri, "--port", "5918"]) == 2
    assert "a name must be letters" in capsys.readouterr().err
