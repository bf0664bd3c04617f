"""Warm gangs on a card: short searches under Ray, and what their trials wait for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_rows import NOT_QUICK, Row, Setting, missing

from harness.formats import HOUR_S, counted

TRIALS = 8
STEPS = 100
FIGURES = {
    "start of a trial, median": "overhead/start_s",
    "a report, median": "overhead/report_s",
    "a step, median": "time/step_s",
}
"""Rows by the metric that they are the median of, over all reports."""
SETTINGS = {"data.unlabelled": 128, "data.dev": 32, "schedule.steps": STEPS, "schedule.evaluate_every": 20}


def measure_gang(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield the times of searches of digits: in one gang, and on a card in several that share it."""
    if setting.quick:
        yield missing("warm gang", NOT_QUICK)
        return
    for gangs in (1, 2, 4) if setting.cuda else (1,):
        yield from _search(gangs, root)


def _search(gangs: int, root: Path) -> Iterator[Row]:
    import harness
    from harness.reporting.record import read_record

    name, begun = f"gangs-{gangs}", time.monotonic()
    harness.search(
        "digits_css",
        space="css_quick",
        settings=SETTINGS,
        name=name,
        storage=root / "runs",
        tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
        report=False,
        quiet=True,
        trials=TRIALS,
        gangs=gangs,
        gangs_per_gpu=gangs,
        scheduler="none",
    )
    elapsed_s, record, of = time.monotonic() - begun, read_record(root / "runs" / name), counted(gangs, "gang")
    spans, devices = record.times.spans, record.times.machine.get("devices", "devices unknown")
    note = f"{TRIALS} trials of {STEPS} steps, on {devices}"
    yield Row("search, from beginning to end", elapsed_s, "s", note=note, of=of)
    busy_s = max(span.end_s for span in spans) - min(span.start_s for span in spans)
    yield Row("trials an hour, once the first has begun", len(spans) * HOUR_S / busy_s, of=of)
    reports = [metrics for by_step in record.reports.values() for metrics in by_step.values()]
    for what, metric in FIGURES.items():
        values = [metrics[metric] for metrics in reports if metric in metrics]
        yield Row(what, 1e3 * statistics.median(values), "ms", of=of)
