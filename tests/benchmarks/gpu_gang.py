"""A warm gang on a card: a short search under Ray, and what its trials wait for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_rows import NOT_QUICK, Row, Setting, missing

TRIALS = 8
STEPS = 100
FIGURES = {
    "start of a trial, median": "overhead/start_s",
    "a report, median": "overhead/report_s",
    "step in a gang, median": "time/step_s",
}
"""Rows by the metric that they are the median of, over all reports."""


def measure_gang(setting: Setting, root: Path) -> Iterator[Row]:
    """Yield the times of a search of digits in one gang, which takes a card where there is one."""
    if setting.quick:
        yield missing("warm gang", NOT_QUICK)
        return
    import harness
    from harness.reporting.record import read_record

    begun = time.monotonic()
    harness.search(
        "digits_css",
        space="css_quick",
        settings={"data.unlabelled": 128, "data.dev": 32, "schedule.steps": STEPS, "schedule.evaluate_every": 20},
        trials=TRIALS,
        gangs=1,
        scheduler="none",
        name="gang",
        storage=root / "runs",
        tracking_uri=f"sqlite:///{root / 'mlflow.db'}",
        quiet=True,
    )
    yield Row("search, from beginning to end", time.monotonic() - begun, "s", note=f"{TRIALS} trials of {STEPS} steps")
    record = read_record(root / "runs" / "gang")
    devices = record.times.machine.get("devices", "devices unknown")
    reports = [metrics for by_step in record.reports.values() for metrics in by_step.values()]
    for what, name in FIGURES.items():
        values = [metrics[name] for metrics in reports if name in metrics]
        yield Row(what, 1e3 * statistics.median(values), "ms", note=devices)
