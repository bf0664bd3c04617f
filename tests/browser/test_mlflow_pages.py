"""What a person sees of an ablation and of a search in MLflow's pages, in a headless Chromium."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from PIL import Image

from harness.ablation.request import Request, make_request
from harness.ablation.results import Ablation, collect
from harness.ablation.tracking import record_outcomes, run_tags
from harness.console import make_console
from harness.experiment import CssExperiment
from harness.reporting.records import differences_to, params_of, record_search, record_verdict
from harness.reporting.results import Collector, Results, write_results
from harness.run_folder import OVERLAYS, RunInfo, checkpoint_folder
from harness.session import recording, tags_of
from harness.tracking.pages import search_links
from harness.trials import Trial, TrialState
from harness.tuning.objectives import Objective
from search_spaces import load_space
from search_spaces.ablation import load_plan

SEEDS = (0, 1)
PATIENCE_MS = 60_000

pytestmark = pytest.mark.timeout(600)


@dataclass
class Pages:
    """MLflow's server over a recorded ablation."""

    address: str
    store: str
    experiment: str
    runs: dict[str, Any]
    """By name."""

    def ids(self, kind: str) -> list[str]:
        return [run.info.run_id for run in self.runs.values() if run.data.tags["s4.kind"] == kind]


def record(folder: Path, uri: str) -> None:
    """Record an ablation that was never trained, with made-up scores and a picture a run."""
    experiment = CssExperiment.of("digits_css", {"data.labelled": 16, "data.unlabelled": 16, "data.dev": 8})
    info = RunInfo.of("ablation", experiment, "dev/miou", {})
    request = make_request(load_plan("css_labels"), info, experiment, SEEDS, vary_data=False)
    home = folder / "runs" / "labels"
    trials = {}
    tags = tags_of(home, info, experiment, plan=request.plan, base=request.base)
    with recording(
        home, info, uri, tags, make_console(quiet=True), metric="dev/miou",
        trial_tags=lambda trial: run_tags(request, trial), trial_name=lambda trial: request.runs[trial.number].label,
    ) as recorder:  # fmt: skip
        experiment.record_inputs(recorder, home, val=True)
        for number in range(len(request.runs)):
            trials[number] = trained(recorder, experiment, request, number)
            draw_picture(checkpoint_folder(home / "trials", number) / OVERLAYS, number)
        late = {number: {"val/miou": 0.4 + number / 100} for number in trials}
        found = Ablation("labels", request, collect(request, trials, late), "val/miou", uri, 1.0, 1.0)
        record_outcomes(recorder, home, found)
        figure = home / "report" / "figures" / "forest-light.png"
        figure.parent.mkdir(parents=True)
        Image.new("RGB", (642, 246), "white").save(figure)
        record_verdict(recorder, home, found, report=True)
        (home / "report" / "report.html").write_text("<h1>a report</h1>")
        recorder.file(home / "report" / "report.html", folder="report")


def record_a_search(folder: Path, uri: str) -> None:
    """Record a search that was never done: of its four trials the last was stopped early."""
    experiment, space = CssExperiment.of("digits_css", {"data.dev": 8}), load_space("css_quick")
    info = RunInfo.of("search", experiment, "dev/miou", {"options": {"trials": 4}, "space": space.text})
    home, objective, collector = folder / "runs" / "first", Objective("dev/miou", "max"), Collector()
    home.mkdir(parents=True)
    with recording(
        home, info, uri, tags_of(home, info, experiment), make_console(quiet=True), metric="dev/miou",
        params=params_of(info, space), trial_tags=differences_to(space.baseline),
    ) as recorder:  # fmt: skip
        for number in range(4):
            overrides = {**space.baseline, "loss.lambda_u": 1.0 + number}
            config, config_hash = experiment.resolve(overrides)
            trial = Trial(number, {}, overrides, config_hash, config)
            for observer in (recorder, collector):
                observer.on_start(trial)
            for step in (300, 600, 900)[: 3 if number < 3 else 1]:
                trial.take_in({"step": float(step), "dev/miou": step / 2000 + number / 100}, step / 2000 + number / 100)
                recorder.on_report(trial)
            trial.state = TrialState.COMPLETE if number < 3 else TrialState.PRUNED
            for observer in (recorder, collector):
                observer.on_end(trial)
        rows = collector.rows(space.paths, [objective])
        results = Results(
            "first", "search", "digits_css", "css_quick", "dev/miou", 900, 1.0, uri, space.paths, rows, ["dev/miou:max"]
        )
        write_results(home, results)
        record_search(recorder, home, info, space, results, {"dev/miou"})


def trained(recorder: Any, experiment: CssExperiment, request: Request, number: int) -> Trial:
    """Record a run whose dev mIoU rises."""
    item = request.runs[number]
    overrides = request.overrides(item)
    config, config_hash = experiment.resolve(overrides)
    trial = Trial(number, {"run": number}, overrides, config_hash, config)
    recorder.on_start(trial)
    for step in (300, 600, 900):
        trial.take_in({"step": float(step), "dev/miou": step / 2000 + number / 100}, step / 2000)
        recorder.on_report(trial)
    trial.state = TrialState.COMPLETE
    recorder.on_end(trial)
    return trial


def draw_picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True)
    Image.new("RGB", (321, 123), (30 * number, 90, 200)).save(path)


@pytest.fixture(scope="module")
def pages(new_store: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    folder = tmp_path_factory.mktemp("pages")
    uri = new_store(folder)
    record_a_search(folder, uri)
    record(folder, uri)  # the newest is the first row
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("s4").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    words = [sys.executable, "-m", "harness.cli.main", "ui", "--tracking-uri", uri, "--port", str(port)]
    server = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              start_new_session=True)  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/health")
        yield Pages(address, uri, experiment, runs)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(url: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@pytest.fixture
def page(chromium: Any, pages: Pages) -> Iterator[Any]:
    opened = chromium.new_page(viewport={"width": 1600, "height": 1200})
    opened.set_default_timeout(PATIENCE_MS)
    yield opened
    opened.close()


def test_the_experiment_shows_one_row_that_unfolds_into_its_runs(page: Any, pages: Pages) -> None:
    page.goto(f"{pages.address}/#/experiments/{pages.experiment}/runs?viewMode=table")
    page.get_by_role("link", name="labels", exact=True).wait_for()
    assert page.get_by_role("link", name="mix, seed 0").count() == 0
    page.locator("[role=gridcell][col-id*='Run Name'] button").first.click()
    for name in ("mix, seed 0", "cross, seed 1", "representation"):
        page.get_by_role("link", name=name, exact=True).wait_for()


def test_summaries_are_compared_side_by_side(page: Any, pages: Pages) -> None:
    ids, experiments = (quote(json.dumps(words)) for words in (pages.ids("aggregate"), [pages.experiment]))
    page.goto(f"{pages.address}/#/compare-runs?runs={ids}&experiments={experiments}")
    page.get_by_text("Comparing 4 Runs from 1 Experiment").wait_for()
    said = page.locator("body")
    for word in ("css.label_strategy", "representation", "cross"):
        assert word in said.inner_text()


def go(page: Any, pages: Pages, name: str, what: str) -> None:
    page.goto(f"{pages.address}{search_links(MlflowClient(pages.store), name)[what]}")


@pytest.mark.parametrize("what", ["open", "runs", "curves", "variants"])
def test_a_link_opens_the_pages_of_trainings_and_not_those_of_agents(what: str, page: Any, pages: Pages) -> None:
    go(page, pages, "labels", what)
    menu = page.locator("aside")
    menu.get_by_role("link", name="Models", exact=True).wait_for()
    assert menu.get_by_role("link", name="Judges").count() == 0


def test_the_page_of_an_ablation_says_what_came_of_it(page: Any, pages: Pages) -> None:
    go(page, pages, "labels", "open")
    page.get_by_text("Show more").first.click()
    versus = page.locator("table", has_text="95 % interval").first
    assert "within noise" in versus.inner_text() or "better" in versus.inner_text()
    page.wait_for_function("[...document.images].some(image => image.naturalWidth === 321)")
    report = page.get_by_role("link", name="the report", exact=True).get_attribute("href")
    page.goto(f"{pages.address}/{report}")
    page.frame_locator("iframe").get_by_text("a report").wait_for()


def test_the_variants_are_a_table_with_verdict_difference_interval_and_seeds(page: Any, pages: Pages) -> None:
    go(page, pages, "labels", "variants")
    for name in ("logit", "representation", "mix", "cross"):
        page.get_by_role("link", name=name, exact=True).wait_for()
    assert page.get_by_role("link", name="mix, seed 0").count() == 0
    for title in ("s4.verdict", "difference/val/miou", "s4.interval", "seeds", "mean/val/miou"):
        page.get_by_role("columnheader", name=title, exact=True).first.wait_for()
    assert page.get_by_role("gridcell", name="the base", exact=True).count() >= 1


def test_each_variant_has_a_colour_of_its_own_that_its_runs_share(page: Any, pages: Pages) -> None:
    go(page, pages, "labels", "variants")
    page.get_by_role("link", name="logit", exact=True).wait_for()
    drawn = page.evaluate("[...document.querySelectorAll('*')].map(each => getComputedStyle(each).backgroundColor)")
    colours = {run.data.tags["mlflow.runColor"] for run in pages.runs.values() if "s4.variant" in run.data.tags}
    assert len(colours) == 4
    for colour in colours:
        red, green, blue = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
        assert f"rgb({red}, {green}, {blue})" in drawn


def test_curves_are_drawn_a_line_a_variant(page: Any, pages: Pages) -> None:
    go(page, pages, "labels", "curves")
    page.get_by_text("Group by: s4.variant").wait_for()
    for name in ("logit", "representation", "mix", "cross"):
        page.get_by_text(f"Group: {name}", exact=True).first.wait_for()
    page.get_by_text("mix (dev/miou)").first.wait_for()


def test_a_search_is_a_table_of_scores_states_and_params(page: Any, pages: Pages) -> None:
    go(page, pages, "first", "runs")
    for title in ("best/dev_miou", "s4.state", "loss.lambda_u"):
        page.get_by_role("columnheader", name=title, exact=True).first.wait_for()
    assert page.get_by_role("gridcell", name="PRUNED", exact=True).count() == 1
    assert page.get_by_role("gridcell", name="COMPLETE", exact=True).count() == 3


def test_a_search_draws_params_against_scores(page: Any, pages: Pages) -> None:
    go(page, pages, "first", "curves")
    page.get_by_text("Parallel Coordinates").wait_for()
    page.locator("svg", has_text="loss.lambda_u").first.wait_for()


def test_a_trial_says_what_it_changes(page: Any, pages: Pages) -> None:
    run = pages.runs["trial-002"].info.run_id
    page.goto(f"{pages.address}/#/experiments/{pages.experiment}/runs/{run}")
    page.get_by_text("Differs from the baseline in").wait_for()
    assert "loss.lambda_u = 3 (baseline: 1)" in page.locator("body").inner_text()


def test_a_run_shows_its_metrics(page: Any, pages: Pages) -> None:
    run = pages.runs["mix, seed 0"].info.run_id
    page.goto(f"{pages.address}/#/experiments/{pages.experiment}/runs/{run}")
    page.get_by_text("val/miou").first.wait_for()
    assert "dev/miou" in page.locator("body").inner_text()


def test_a_run_shows_its_picture(page: Any, pages: Pages) -> None:
    run = pages.runs["mix, seed 0"].info.run_id
    page.goto(f"{pages.address}/#/experiments/{pages.experiment}/runs/{run}/artifacts/{OVERLAYS}")
    page.wait_for_function("[...document.images].some(image => image.naturalWidth === 321)")
