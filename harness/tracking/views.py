"""Prepared views of MLflow's pages: which runs of a search are shown, in which order, with which charts.

MLflow 3.17 keeps what its button *Views* saves as tags of the experiment. Ours are written as its own are; a version
that reads them otherwise shows its usual page, and nothing is lost.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Literal, NamedTuple

SHARED = "mlflow.sharedViewState."
"""What such a tag's name begins with; the rest is the key of the view."""
VIEWS = ("variants", "runs")
"""What views show, the most telling first: summaries side by side, or the curves of all runs."""
MOST_RUNS = 20
"""Lines in a chart: more cannot be told apart."""


class Chart(NamedTuple):
    """A chart of a view."""

    metric: str
    kind: Literal["BAR", "LINE"]
    """A bar a run for its last value, or a line a run over its steps."""


def view_key(search: str, what: str) -> str:
    """Return the key of a search's view: the same each time, so that a view is replaced and not added."""
    return re.sub(r"[^A-Za-z0-9-]", "-", f"s4-{search}-{what}")


def view_value(name: str, condition: str, order_by: str, charts: list[Chart], time: int) -> str:
    """Return a view as MLflow writes it.

    Args:
        name: in the menu of views.
        condition: of the runs, in MLflow's words.
        order_by: a metric whose highest values come first. MLflow folds children away in the order of time alone.
        charts: from top to bottom.
        time: in milliseconds.
    """
    sections = list(dict.fromkeys(chart.metric.rpartition("/")[0] for chart in charts))
    state = {
        "searchFilter": condition,
        "orderByKey": f"metrics.`{order_by}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [f"metrics.`{chart.metric}`" for chart in charts],
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": [_chart(index, chart, sections) for index, chart in enumerate(charts)],
        "compareRunSections": [
            {"uuid": f"section-{index}", "name": section, "display": True, "isReordered": False}
            for index, section in enumerate(sections)
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state, separators=(",", ":")).encode())).decode()
    return json.dumps({"name": name, "createdAt": time, "updatedAt": time, "state": f"deflate;{packed}"})


def _chart(index: int, chart: Chart, sections: list[str]) -> dict[str, object]:
    section, _, leaf = chart.metric.rpartition("/")
    common: dict[str, object] = {
        "uuid": f"chart-{index}",
        "type": chart.kind,
        "runsCountToCompare": MOST_RUNS,
        "metricSectionId": f"section-{sections.index(section)}",
        "deleted": False,
        "isGenerated": False,
        "displayName": leaf,
        "metricKey": chart.metric,
    }
    if chart.kind == "BAR":
        return common
    return {
        **common,
        "selectedMetricKeys": [chart.metric],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
