"""Where MLflow's pages show a search: addresses below those of its server."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from harness.tracking.views import SHARED, VIEWS, view_key
from harness.tracking.writer import PARENT
from trainers.errors import UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Links(NamedTuple):
    """What follows a server's address."""

    runs: str
    """The table of all runs, of the experiment or of one search in it."""
    parent: str | None = None
    """The run of the search itself."""
    views: tuple[str, ...] = ()
    """Prepared pages with charts."""


def experiment_link(client: MlflowClient, experiment: str) -> Links:
    """Return the page of an experiment, by its name; that of all experiments where there is none yet."""
    found = client.get_experiment_by_name(experiment)
    return Links(f"/#/experiments/{found.experiment_id}/runs" if found else "/#/experiments")


def search_links(client: MlflowClient, experiment: str, name: str) -> Links:
    """Return the pages of the newest search, training or ablation of this name in an experiment.

    Raises:
        UsageError: nothing of this name is recorded there.
    """
    found = client.get_experiment_by_name(experiment)
    condition = f"tags.`s4.search` = '{name}'"
    order = ["attributes.start_time DESC"]
    runs = client.search_runs([found.experiment_id], condition, max_results=1, order_by=order) if found else []
    if not runs:
        raise UsageError(
            f"a name must be that of something recorded, {name} is not in experiment {experiment} of "
            f"{client.tracking_uri}: give the name and the tracking URI that it was run with, or s4 sync {name} if "
            "MLflow could not be reached then"
        )
    base = f"/#/experiments/{found.experiment_id}/runs"
    parent = runs[0].data.tags.get(PARENT, runs[0].info.run_id)
    keys = [view_key(name, what) for what in VIEWS]
    views = [f"{base}?viewStateShareKey={key}&compareRunsMode=CHART" for key in keys if SHARED + key in found.tags]
    return Links(f"{base}?searchFilter={quote(condition)}", f"{base}/{parent}", tuple(views))
