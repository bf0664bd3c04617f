"""Samples of nodes: taken by a thread, on the search's run, and no trouble with a node is trouble for the search."""

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from recorded import Store

from harness.tracking.node_metrics import Meter, NodeMetrics


class MadeUp:
    """Two nodes, of which one is gone after the second sample; the third sample fails altogether."""

    def __init__(self) -> None:
        self.samples = 0
        self.enough = threading.Event()
        self.closed = False

    def sample(self) -> Iterator[tuple[str, Mapping[str, float]]]:
        self.samples += 1
        if self.samples == 3:
            raise ConnectionError("the cluster does not answer")
        yield "first", {"cpu_utilization_percentage": float(self.samples)}
        if self.samples < 3:
            yield "second", {"cpu_utilization_percentage": 50.0}
        if self.samples == 5:
            self.enough.set()

    def close(self) -> None:
        self.closed = True


def test_each_node_has_its_series_and_a_sample_that_fails_ends_nothing() -> None:
    nodes, seen = MadeUp(), []
    with NodeMetrics(lambda node, reading: seen.append((node, *reading.values())), 0.001, lambda: nodes):
        assert nodes.enough.wait(10)
    assert [value for node, value in seen if node == "first"][:4] == [1, 2, 4, 5]
    assert [value for node, value in seen if node == "second"] == [50, 50]
    assert nodes.closed


def test_nothing_is_sampled_after_the_end() -> None:
    nodes = MadeUp()
    with NodeMetrics(lambda node, reading: None, 0.001, lambda: nodes):
        assert nodes.enough.wait(10)
    samples = nodes.samples
    time.sleep(0.05)
    assert nodes.samples == samples


def test_without_a_cluster_nothing_is_started() -> None:
    before = threading.active_count()
    with NodeMetrics(lambda node, reading: None, 0.001, lambda: None):
        assert threading.active_count() == before


def test_the_series_are_on_the_run_of_the_search_where_mlflow_shows_system_metrics(store: Store) -> None:
    with store.recorder() as recorder:
        recorder.system("node-a", {"cpu_utilization_percentage": 12.5})
    assert store.run("search-001").data.metrics == {"system/node-a/cpu_utilization_percentage": 12.5}


def test_a_step_is_ten_seconds_since_the_search_was_first_opened(store: Store) -> None:
    recorder = store.recorder()
    recorder._began -= 25_000
    recorder.system("node-a", {"cpu_utilization_percentage": 1.0})
    recorder.close()
    [point] = store.client.get_metric_history(
        store.run("search-001").info.run_id, "system/node-a/cpu_utilization_percentage"
    )
    assert point.step == 2


def test_a_machine_is_read_in_percent_and_megabytes() -> None:
    reading = Meter().read()
    percentages = [value for name, value in reading.items() if name.endswith("percentage")]
    assert len(percentages) >= 3
    assert all(0 <= value <= 100 for value in percentages)
    assert reading["network_receive_megabytes_per_s"] >= 0


def test_a_busy_moment_is_seen_from_any_thread() -> None:
    meter, readings = Meter(), []
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    reader = threading.Thread(target=lambda: readings.append(meter.read()))
    reader.start()
    reader.join()
    assert readings[0]["cpu_utilization_percentage"] > 0


class Nvml:
    """NVIDIA's library of a machine with a card of 80 GB that is half full, and one that tells its memory alone."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUtilizationRates(self, card: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=self._of_the_first(card, 93))

    def nvmlDeviceGetMemoryInfo(self, card: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=40_000_000_000, total=80_000_000_000)

    def nvmlDeviceGetPowerUsage(self, card: int) -> int:  # noqa: N802
        return self._of_the_first(card, 350_000)

    def nvmlDeviceGetEnforcedPowerLimit(self, card: int) -> int:  # noqa: N802
        return self._of_the_first(card, 700_000)

    def _of_the_first(self, card: int, value: int) -> int:
        if card:
            raise RuntimeError("Not Supported")
        return value


CALLS = [name for name in dir(Nvml) if name.startswith("nvml")]


def test_a_card_is_read_under_the_names_that_mlflow_uses_and_tells_what_it_can() -> None:
    cards = {name: value for name, value in Meter(Nvml()).read().items() if name.startswith("gpu_")}
    assert cards == {
        "gpu_0_utilization_percentage": 93,
        "gpu_0_memory_usage_megabytes": 40_000,
        "gpu_0_memory_usage_percentage": 50,
        "gpu_0_power_usage_watts": 350,
        "gpu_0_power_usage_percentage": 50,
        "gpu_1_memory_usage_megabytes": 40_000,
        "gpu_1_memory_usage_percentage": 50,
    }


def test_mlflow_would_name_the_readings_of_a_card_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.system_metrics.metrics import gpu_monitor

    nvml = SimpleNamespace(
        NVMLError=RuntimeError, nvmlInit=lambda: None, **{name: getattr(Nvml(), name) for name in CALLS}
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(gpu_monitor, "pynvml", nvml, raising=False)
    monitor = gpu_monitor.GPUMonitor()
    monitor.collect_metrics()
    assert monitor.aggregate_metrics() == {
        name: value for name, value in Meter(nvml).read().items() if name.startswith("gpu_")
    }


def test_a_driver_that_goes_away_costs_the_readings_of_cards_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount", lambda: 1 / 0)
    assert not [name for name in Meter(nvml).read() if name.startswith("gpu_")]
    assert "cpu_utilization_percentage" in Meter(nvml).read()
