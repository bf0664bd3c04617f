"""Prepared views, as MLflow's pages write them."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from recorded import Store

from harness.tracking.views import SHARED, Chart, search_links, view_key, view_value

CHARTS = [Chart("mean/val/miou", "BAR"), Chart("mean/dev/miou", "BAR"), Chart("dev/miou", "LINE")]


def unpacked(value: str) -> dict[str, Any]:
    packed = json.loads(value)["state"].removeprefix("deflate;")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state


def test_every_chart_stands_in_a_section_that_there_is() -> None:
    state = unpacked(view_value("v", "tags.a = 'b'", "mean/val/miou", CHARTS, 1))
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    assert [chart["metricKey"] for chart in state["compareRunCharts"]] == [chart.metric for chart in CHARTS]


def test_a_view_fits_into_a_tag_of_an_experiment() -> None:
    many = [Chart(f"some/long/metric/name/of/number/{index}", "LINE") for index in range(30)]
    assert len(view_value("v", "c", "m", many, 1)) < 5000


def test_the_key_of_a_view_is_the_same_each_time_and_fits_an_address() -> None:
    assert view_key("my_search.2", "runs") == "s4-my-search-2-runs"


def test_a_search_with_views_has_links_to_them(store: Store) -> None:
    recorder = store.recorder("ablation", "labels")
    recorder.view("runs", "tags.`s4.kind` = 'trial'", "dev/miou", CHARTS)
    recorder.close()
    key = view_key("labels", "runs")
    assert SHARED + key in store.client.get_experiment_by_name(store.experiment).tags
    (view,) = search_links(store.client, store.experiment, "labels").views
    assert f"viewStateShareKey={key}" in view


def test_a_summary_has_the_tags_of_all_runs_of_the_search(store: Store) -> None:
    recorder = store.recorder("ablation", "labels")
    recorder.aggregate("mix", "mix", {"mean/val/miou": 0.5})
    recorder.close()
    assert store.run("mix").data.tags["s4.search"] == "labels"
    assert store.run("mix").data.tags["s4.preset"] == "digits_css"
