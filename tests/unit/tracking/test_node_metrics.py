"""Samples of nodes: taken by a thread, on the search's run, and no trouble with a node is trouble for the search."""

import threading
import time
from collections.abc import Iterator, Mapping

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
