"""MLflow's pages of the records: links to them, and the server that shows them."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from harness.tracking.stores import (
    EXPERIMENT,
    NO_JOBS,
    PARENT,
    artifact_location,
    asking,
    check_store,
    connect_client,
    experiment_ids,
    is_server,
    may_exist,
)
from harness.tracking.views import SHARED, view_key
from trainers.errors import UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

Links = Mapping[str, str]
"""Addresses of pages by what they show, without that of the server; `open` is the one to begin with."""
HOST = "127.0.0.1"
TRAINING = "workflowType=machine_learning"
"""Has MLflow's pages (3.17) show runs, models and charts, whatever was looked at before: else traces and agents."""


def experiment_link(client: MlflowClient, experiment: str = EXPERIMENT) -> Links:
    """Return the page of an experiment, by its name; that of all experiments where there is none yet."""
    known = client.get_experiment_by_name(experiment)
    return {"open": f"/#/experiments{f'/{known.experiment_id}/runs' if known else ''}?{TRAINING}"}


def search_links(client: MlflowClient, name: str) -> Links:
    """Return the pages of the newest search, training or ablation of this name, whatever experiment it is in.

    `runs` are in a table, with the columns of the prepared view where there is one.

    Raises:
        UsageError: nothing of this name is recorded there.
    """
    condition = f"tags.`s4.search` = '{name}'"
    order = ["attributes.start_time DESC"]
    runs = client.search_runs(experiment_ids(client), condition, max_results=1, order_by=order)
    if not runs:
        raise UsageError(
            f"a name must be that of something recorded, {name} is not in {client.tracking_uri}: give the name and the "
            f"tracking URI that it was run with, or s4 sync {name} if MLflow could not be reached then"
        )
    experiment = client.get_experiment(runs[0].info.experiment_id)
    parent = runs[0].data.tags.get(PARENT, runs[0].info.run_id)
    base = f"/#/experiments/{experiment.experiment_id}/runs"

    def view(key: str, mode: str) -> str:
        return f"{base}?viewStateShareKey={key}&compareRunsMode={mode}&{TRAINING}"

    links = {"open": f"{base}/{parent}?{TRAINING}", "runs": f"{base}?searchFilter={quote(condition)}&{TRAINING}"}
    of_runs, of_variants = view_key(name, "runs"), view_key(name, "variants")
    if SHARED + of_runs in experiment.tags:
        links |= {"runs": view(of_runs, "TABLE"), "curves": view(of_runs, "CHART")}
    if SHARED + of_variants in experiment.tags:
        links["variants"] = view(of_variants, "TABLE")
    return links


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
        return search_links(client, name) if name else experiment_link(client)


def _addresses(server: str, links: Links | None) -> str:
    if links is None:
        return f"open {server}/#/?{TRAINING}\n"
    return "".join(f"{what}{'' if what == 'open' else ':'} {server}{address}\n" for what, address in links.items())
