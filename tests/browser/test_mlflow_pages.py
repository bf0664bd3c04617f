"""What a person sees of an ablation in MLflow's pages, in a headless Chromium."""

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
from harness.run_folder import OVERLAYS, RunInfo, checkpoint_folder
from harness.session import recording, tags_of
from harness.tracking.views import search_links
from harness.trials import Trial, TrialState
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
    record(folder, uri)
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


def test_the_prepared_page_shows_the_variants_with_charts(page: Any, pages: Pages) -> None:
    links = search_links(MlflowClient(pages.store), "s4", "labels")
    page.goto(f"{pages.address}{links.views[0]}")
    page.get_by_text("mean/val/miou").first.wait_for()
    for name in ("logit", "representation", "mix", "cross"):
        page.get_by_role("link", name=name, exact=True).wait_for()
    assert page.get_by_role("link", name="mix, seed 0").count() == 0


def test_a_run_shows_its_metrics(page: Any, pages: Pages) -> None:
    run = pages.runs["mix, seed 0"].info.run_id
    page.goto(f"{pages.address}/#/experiments/{pages.experiment}/runs/{run}")
    page.get_by_text("final/val_miou").first.wait_for()
    assert "dev/miou" in page.locator("body").inner_text()


def test_a_run_shows_its_picture(page: Any, pages: Pages) -> None:
    run = pages.runs["mix, seed 0"].info.run_id
    page.goto(f"{pages.address}/#/experiments/{pages.experiment}/runs/{run}/artifacts/{OVERLAYS}")
    page.wait_for_function("[...document.images].some(image => image.naturalWidth === 321)")
