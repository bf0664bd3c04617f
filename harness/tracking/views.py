"""Prepared views of MLflow's pages of runs.

MLflow 3.17 keeps what its button *Views* saves as tags of the experiment: which runs are shown, in which order, with
which charts. Ours are written as its own are; a version that reads them otherwise shows its usual page, and nothing is
lost.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

SHARED = "mlflow.sharedViewState."
"""What such a tag's name begins with; the rest is the key of the view."""
What = Literal["runs", "variants"]
"""What a view shows: the runs with their curves, or the summaries of an ablation's variants side by side."""
CURVES = (
    "train/loss/total", "quality/mix/miou", "quality/logit/miou", "quality/agreement", "health/predicted_entropy",
)  # fmt: skip
"""Metrics of this project's trainer that views draw beside those that are sought, where they were reported."""
WIDTH, LETTER, LETTERS = 40, 8, 15
"""Of a column of the table: pixels beside its title, pixels of a letter, and letters of the shortest title."""
PARAMS = "params and score"
"""Section of `PARALLEL` charts, which take the whole width."""
MOST_RUNS = 20
"""Lines in a chart: more cannot be told apart."""


class Chart(NamedTuple):
    """A chart of a view."""

    metric: str
    kind: Literal["BAR", "LINE", "PARALLEL"]
    """A bar a run for its last value, a line a run over its steps, or a line a run through its params to the metric."""
    params: Sequence[str] = ()
    """Axes of a `PARALLEL` one beside the metric."""


def view_key(search: str, what: str) -> str:
    """Return the key of a search's view: the same each time, so that a view is replaced and not added."""
    return re.sub(r"[^A-Za-z0-9-]", "-", f"s4-{search}-{what}")


def view_value(
    name: str,
    condition: str,
    order_by: str,
    charts: Sequence[Chart],
    time: int,
    columns: Sequence[str] = (),
    group_by: str | None = None,
) -> str:
    """Return a view as MLflow writes it.

    Args:
        condition: of the runs, in MLflow's words.
        order_by: a metric whose highest values come first. MLflow folds children away in the order of time alone.
        time: in milliseconds.
        columns: of the table: `metrics.NAME`, `params.NAME` or `tags.NAME`.
        group_by: a tag; runs that share its value are one row, and one curve with their mean.
    """
    sections = list(dict.fromkeys(map(_section, charts)))
    ids = {"{}.`{}`".format(*column.split(".", 1)): column for column in columns}
    state = {
        "searchFilter": condition,
        "orderByKey": f"metrics.`{order_by}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*ids],
        "columnOrder": [*ids],
        "columnWidths": {
            key: WIDTH + LETTER * max(LETTERS, len(column.split(".", 1)[1])) for key, column in ids.items()
        },
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": [_chart(index, chart, sections) for index, chart in enumerate(charts)],
        "compareRunSections": [
            {
                "uuid": f"section-{index}",
                "name": section,
                "display": True,
                "isReordered": False,
                "columns": 1 if section == PARAMS else 3,
            }
            for index, section in enumerate(sections)
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": group_by
        and {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": group_by}],
        },
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state, separators=(",", ":")).encode())).decode()
    return json.dumps({"name": name, "createdAt": time, "updatedAt": time, "state": f"deflate;{packed}"})


def _section(chart: Chart) -> str:
    return PARAMS if chart.kind == "PARALLEL" else chart.metric.rpartition("/")[0]


def _chart(index: int, chart: Chart, sections: list[str]) -> dict[str, Any]:
    leaf = chart.metric.rpartition("/")[2]
    common = {
        "uuid": f"chart-{index}",
        "type": chart.kind,
        "runsCountToCompare": MOST_RUNS,
        "metricSectionId": f"section-{sections.index(_section(chart))}",
        "deleted": False,
        "isGenerated": False,
        "displayName": leaf,
        "metricKey": chart.metric,
    }
    line = {
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
    parallel = {"selectedParams": [*chart.params], "selectedMetrics": [chart.metric], "showAllRuns": True}
    return {**common, **{"BAR": {}, "LINE": line, "PARALLEL": parallel}[chart.kind]}
