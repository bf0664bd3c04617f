"""`s4 sync`: sends what a tracking server that was down did not receive."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Storage, TrackingUri
from harness.run_folder import named_folder


def sync(
    name: Annotated[str, typer.Argument(help="The name that s4 tune or s4 train gave or was given.")],
    storage: Storage = Path("runs"),
    tracking_uri: TrackingUri = None,
) -> None:
    """Send what a tracking server that was down did not receive. Sending twice changes nothing."""
    from harness.tracking.recorder import replay
    from harness.tracking.stores import OUTBOX, default_tracking_uri

    delivery = replay(named_folder(storage, name) / OUTBOX, tracking_uri or default_tracking_uri())
    sys.stdout.write(f"{delivery.applied} operations sent, {delivery.pending} left\n")
    if delivery.note:
        sys.stderr.write(f"s4: {delivery.note}\n")
        raise typer.Exit(1)
