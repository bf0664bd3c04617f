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

from harness.ablation.evaluate import PICTURE
from harness.ablation.request import Request, make_request
from harness.ablation.results import Ablation, collect
from harness.ablation.tracking import open_recorder, record_begin, record_outcomes
from harness.run_folder import checkpoint_folder
from harness.search.manifest import Origin
from harness.tracking.links import search_links
from harness.trials import Trial, TrialState
from search_spaces.ablation import load_plan
from trainers.data.splits import open_splits
from trainers.overrides import apply_overrides
from trainers.presets import load_preset

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
    config = apply_overrides(load_preset("digits_css"), {"data.labelled": 16, "data.unlabelled": 16, "data.dev": 8})
    origin = Origin("digits_css", {}, config, open_splits(config.data).digest)
    request = make_request(load_plan("css_labels"), origin, SEEDS, vary_data=False)
    home = folder / "runs" / "labels"
    trials = {}
    with open_recorder(home, request, "val/miou", uri) as recorder:
        record_begin(recorder, home, request)
        for number in range(len(request.runs)):
            trials[number] = trained(recorder, request, number)
            draw_picture(checkpoint_folder(home / "trials", number) / PICTURE, number)
        late = {number: {"val/miou": 0.4 + number / 100} for number in trials}
        found = Ablation("labels", request, collect(request, trials, late), "val/miou", uri, 1.0, 1.0)
        record_outcomes(recorder, home, found, models=False)


def trained(recorder: Any, request: Request, number: int) -> Trial:
    """Record a run whose dev mIoU rises."""
    item = request.runs[number]
    overrides = request.overrides(item)
    config = request.config_of(item)
    trial = Trial(number, {"run": number}, overrides, config.hash, config.model_dump(mode="json"))
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
    page.goto(f"{pages.address}/#/experiments/{pages.experiment}/runs/{run}/artifacts/{PICTURE}")
    page.wait_for_function("[...document.images].some(image => image.naturalWidth === 321)")
