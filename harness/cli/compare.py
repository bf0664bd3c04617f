"""`s4 compare`: the statistics of an ablation for anybody's scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.help import RECORDS, WHAT
from harness.cli.options import Json, TrackingUri
from harness.console import open_console


def compare(
    scores: Annotated[
        Path | None, typer.Argument(metavar="SCORES", help="A CSV file with the columns variant, seed and score.")
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take the finished runs of this MLflow experiment.", rich_help_panel=WHAT),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The score, where higher is better: a column, or MLflow's metric.",
                     rich_help_panel=WHAT),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="VARIANT", help="What others are compared with; default: the first.",
                     rich_help_panel=WHAT),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="MLflow's tag or param of the variant; default: s4.variant, variant or "
                     "method.", rich_help_panel=WHAT),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="MLflow's tag or param of the seed; default: s4.seed or seed.",
                     rich_help_panel=WHAT),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the report there.", rich_help_panel=RECORDS)
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Compare scores of variants over paired seeds, whoever trained them.

    Differences come with intervals over seeds and with verdicts that count how many variants were tried.

    Examples:
        s4 compare scores.csv
        s4 compare scores.csv --metric miou --base supervised --out comparison
        s4 compare --experiment mine --metric val/miou --variant method --seed seed
    """
    from harness import api

    with open_console(as_json) as console:
        api.compare(
            scores, experiment=experiment, metric=metric, base=base, variant=variant, seed=seed, out=out,
            tracking_uri=tracking_uri, console=console,
        )  # fmt: skip
