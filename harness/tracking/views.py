"""MLflow's pages of the records: prepared views of runs, links to them, and the server that shows them.

MLflow 3.17 keeps what its button *Views* saves as tags of the experiment: which runs are shown, in which order, with
which charts. Ours are written as its own are; a version that reads them otherwise shows its usual page, and nothing is
lost.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import sys
import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote

from harness.tracking.stores import (
    EXPERIMENT,
    NO_JOBS,
    PARENT,
    artifact_location,
    asking,
    check_store,
    connect_client,
    is_server,
    may_exist,
)
from trainers.errors import UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SHARED = "mlflow.sharedViewState."
"""What such a tag's name begins with; the rest is the key of the view."""
VIEWS = ("variants", "runs")
"""Views by what they show, the most telling first: summaries side by side, or the curves of all runs."""
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
        condition: of the runs, in MLflow's words.
        order_by: a metric whose highest values come first. MLflow folds children away in the order of time alone.
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
    line: dict[str, object] = {
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
    return common if chart.kind == "BAR" else {**common, **line}


class Links(NamedTuple):
    """Addresses of pages, without that of the server."""

    runs: str
    """The table of all runs, of the experiment or of one search in it."""
    parent: str | None = None
    views: tuple[str, ...] = ()


def experiment_link(client: MlflowClient, experiment: str) -> Links:
    """Return the page of an experiment, by its name; that of all experiments where there is none yet."""
    known = client.get_experiment_by_name(experiment)
    return Links(f"/#/experiments/{known.experiment_id}/runs" if known else "/#/experiments")


def search_links(client: MlflowClient, experiment: str, name: str) -> Links:
    """Return the pages of the newest search, training or ablation of this name in an experiment.

    Raises:
        UsageError: nothing of this name is recorded there.
    """
    known = client.get_experiment_by_name(experiment)
    condition = f"tags.`s4.search` = '{name}'"
    order = ["attributes.start_time DESC"]
    runs = client.search_runs([known.experiment_id], condition, max_results=1, order_by=order) if known else []
    if not runs:
        raise UsageError(
            f"a name must be that of something recorded, {name} is not in experiment {experiment} of "
            f"{client.tracking_uri}: give the name and the tracking URI that it was run with, or s4 sync {name} if "
            "MLflow could not be reached then"
        )
    base = f"/#/experiments/{known.experiment_id}/runs"
    parent = runs[0].data.tags.get(PARENT, runs[0].info.run_id)
    keys = [view_key(name, what) for what in VIEWS]
    views = [f"{base}?viewStateShareKey={key}&compareRunsMode=CHART" for key in keys if SHARED + key in known.tags]
    return Links(f"{base}?searchFilter={quote(condition)}", f"{base}/{parent}", tuple(views))


HOST = "127.0.0.1"


def serve(tracking_uri: str, name: str | None, port: int) -> None:
    """Write where the records can be seen, and become MLflow's server of them, on this machine only, until Ctrl-C.

    Args:
        tracking_uri: absolute; where it is that of a server, that is not served again.
        name: of a search, training or ablation whose pages are wanted.

    Raises:
        UsageError: nothing is recorded, MLflow cannot be reached, or the port is taken.
    """
    if is_server(tracking_uri):
        links = _read_links(tracking_uri, name) if name else None
        sys.stdout.write(f"the records are on a server already\n{_addresses(tracking_uri.rstrip('/'), links)}")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise UsageError(f"a port must be free, {port} on {HOST} is taken: choose another with --port") from None
    if not (there := may_exist(tracking_uri)):
        check_store(tracking_uri)
    links = _read_links(tracking_uri, name) if name or there else None
    sys.stdout.write(f"serving {tracking_uri}\n{_addresses(f'http://{HOST}:{port}', links)}(Ctrl-C ends)\n")
    sys.stdout.flush()
    # In our place, so that Ctrl-C reaches it and nothing is left.
    os.execve(sys.executable, server_command(tracking_uri, port), {**NO_JOBS, **os.environ})  # noqa: S606


def server_command(uri: str, port: int) -> list[str]:
    """Return the command of MLflow's server on a store, one process, artifacts where the recorder puts them."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    return [*command, "--default-artifact-root", artifact_location(uri) or ""]


def _read_links(uri: str, name: str | None) -> Links:
    if not may_exist(uri):
        raise UsageError(f"records must be there to be shown, there is no {uri}: give --tracking-uri")
    with asking(uri):
        client = connect_client(uri)
        return search_links(client, EXPERIMENT, name) if name else experiment_link(client, EXPERIMENT)


def _addresses(server: str, links: Links | None) -> str:
    if links is None:
        return f"open {server}\n"
    parent = f"open {server}{links.parent}\n" if links.parent else ""
    views = "".join(f"its charts: {server}{view}\n" for view in links.views)
    return f"{parent}{'its runs:' if parent else 'open'} {server}{links.runs}\n{views}"
