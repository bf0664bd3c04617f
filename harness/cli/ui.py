"""`s4 ui`: MLflow's pages over the records, for this machine only."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import typer

from harness.cli.options import TrackingUri
from harness.tracking.stores import absolute_uri, artifact_location, default_tracking_uri, is_server
from trainers.errors import UsageError

HOST = "127.0.0.1"


def ui(
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Serve the records with MLflow's own pages, on this machine only, until Ctrl-C."""
    uri = absolute_uri(tracking_uri or default_tracking_uri())
    if is_server(uri):
        sys.stdout.write(f"the records are on a server already: open {uri}\n")
        return
    _require_free(port)
    sys.stdout.write(f"serving {uri}\nopen http://{HOST}:{port} (Ctrl-C ends)\n")
    sys.stdout.flush()
    os.execv(sys.executable, command(uri, port))  # noqa: S606  # in our place, so that Ctrl-C reaches it and nothing is left


def command(uri: str, port: int) -> list[str]:
    """Return the words that start MLflow's server on a store, one process, artifacts where the recorder puts them."""
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", HOST, "--port", str(port)]
    return [*words, "--workers", "1", "--default-artifact-root", artifact_location(uri) or ""]


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise UsageError(f"a port must be free, {port} on {HOST} is taken: choose another with --port") from None
