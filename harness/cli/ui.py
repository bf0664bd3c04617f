"""`s4 ui`: MLflow's pages over the records, for this machine only."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import TrackingUri, named_folder
from harness.formats import one_line
from harness.tracking.stores import NO_JOBS, absolute_uri, artifact_location, default_tracking_uri, is_server
from trainers.errors import UsageError

if TYPE_CHECKING:
    from harness.tracking.links import Links

HOST = "127.0.0.1"
EXPERIMENT = "s4"


def ui(
    name: Annotated[str | None, typer.Argument(help="A search, training or ablation, to get the links of.")] = None,
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Serve the records with MLflow's own pages, on this machine only, until Ctrl-C."""
    uri = absolute_uri(tracking_uri or default_tracking_uri())
    if is_server(uri):
        addresses = _addresses(uri.rstrip("/"), _links(uri, name) if name else None)
        sys.stdout.write(f"the records are on a server already\n{addresses}")
        return
    _require_free(port)
    address = f"http://{HOST}:{port}"
    links = _links(uri, name) if name or _exists(uri) else None
    sys.stdout.write(f"serving {uri}\n{_addresses(address, links)}(Ctrl-C ends)\n")
    sys.stdout.flush()
    # In our place, so that Ctrl-C reaches it and nothing is left.
    os.execve(sys.executable, command(uri, port), {**NO_JOBS, **os.environ})  # noqa: S606


def command(uri: str, port: int) -> list[str]:
    """Return the words that start MLflow's server on a store, one process, artifacts where the recorder puts them."""
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", HOST, "--port", str(port)]
    return [*words, "--workers", "1", "--default-artifact-root", artifact_location(uri) or ""]


def _addresses(server: str, links: Links | None) -> str:
    if links is None:
        return f"open {server}\n"
    parent = f"open {server}{links.parent}\n" if links.parent else ""
    views = "".join(f"its charts: {server}{view}\n" for view in links.views)
    return f"{parent}{'its runs:' if parent else 'open'} {server}{links.runs}\n{views}"


def _exists(uri: str) -> bool:
    """Return whether a store holds something: asking MLflow takes seconds, and would make a SQLite file."""
    scheme, _, path = uri.partition(":///")
    return scheme != "sqlite" or Path(path).exists()


def _links(uri: str, name: str | None) -> Links:
    from mlflow.exceptions import MlflowException

    from harness.tracking.links import experiment_link, search_links
    from harness.tracking.sender import connect_client

    if name:
        named_folder(Path(), name)  # refuses what is no name
    if not _exists(uri):
        raise UsageError(f"records must be there to be shown, there is no {uri}: give --tracking-uri")
    try:
        client = connect_client(uri)
        return search_links(client, EXPERIMENT, name) if name else experiment_link(client, EXPERIMENT)
    except MlflowException as error:
        reason = one_line(error, 200)
        raise UsageError(f"MLflow must be reachable at {uri}, it is not ({reason}): check --tracking-uri") from None


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise UsageError(f"a port must be free, {port} on {HOST} is taken: choose another with --port") from None
