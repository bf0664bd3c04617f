from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray._private.utils import check_version_info

from harness.cluster import ClusterNodes, Node, WorkerResources, check_fit
from harness.connection import SOCKETS_FOLDER_BYTES, RayLostError, _find_cluster, check_own_node, check_ray, ray_session
from trainers.errors import UsageError


def cluster(*resources: dict[str, float]) -> ClusterNodes:
    return ClusterNodes(tuple(Node(str(index), "10.0.0.1", node) for index, node in enumerate(resources)))


def test_gangs_that_fit_exactly_are_accepted() -> None:
    check_fit(2, 2, WorkerResources(use_gpu=True), nodes=cluster({"CPU": 4.0, "GPU": 4.0}))
    check_fit(2, 2, WorkerResources(cpus_per_worker=3), nodes=cluster({"CPU": 7.0}, {"CPU": 6.0}))


@pytest.mark.parametrize(
    ("use_gpu", "message"),
    [
        (False, "2 gangs of 3 need 6 CPUs, the cluster has 4"),
        (True, "2 gangs of 3 need 6 CPUs, the cluster has 4"),
    ],
)
def test_gangs_that_do_not_fit_are_refused_with_the_numbers(use_gpu: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_fit(2, 3, WorkerResources(use_gpu), nodes=cluster({"CPU": 4.0, "GPU": 8.0}))


def test_gangs_without_enough_gpus_are_refused() -> None:
    with pytest.raises(UsageError, match="need 2 GPUs, the cluster has 0"):
        check_fit(2, 1, WorkerResources(use_gpu=True), nodes=cluster({"CPU": 4.0}))


def test_cpus_of_each_worker_are_counted() -> None:
    with pytest.raises(UsageError, match="1 gangs of 2 need 6 CPUs, the cluster has 5"):
        check_fit(1, 2, WorkerResources(cpus_per_worker=3), nodes=cluster({"CPU": 5.0}))


def test_cpus_of_a_worker_are_those_of_one_node() -> None:
    halves = cluster({"CPU": 3.0}, {"CPU": 3.0})
    with pytest.raises(UsageError, match=r"must find 2 CPUs a worker .* has 2 places of 2 CPUs: "):
        check_fit(3, 1, WorkerResources(cpus_per_worker=2), nodes=halves)


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a session another does nothing; other tests may have one."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)


@pytest.mark.usefixtures("no_session")
def test_an_address_where_nothing_answers_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing answers there"), ray_session("127.0.0.1:1"):
        pass


@pytest.mark.usefixtures("no_session")
def test_an_address_of_another_form_is_refused() -> None:
    with pytest.raises(UsageError, match="must be local, auto or HOST:PORT, got 'somewhere'"), ray_session("somewhere"):
        pass


@pytest.mark.usefixtures("no_session")
def test_a_cluster_of_another_version_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"ray_version": "2.9.0", "python_version": "3.10.1"}
    monkeypatch.setattr("harness.connection._check_reachable", lambda _: None)
    monkeypatch.setattr("harness.connection.GcsClient", lambda address: None)
    monkeypatch.setattr("ray.init", lambda *_, **__: check_version_info(theirs, "here", raise_on_mismatch=True))
    with pytest.raises(UsageError, match=r"Ray: 2\.9\.0 Python: 3\.10\.1 This process") as refusal, ray_session("h:1"):
        pass
    assert "\n" not in str(refusal.value)


def test_auto_is_local_where_no_cluster_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert _find_cluster() == "local"


def test_auto_passes_over_the_record_of_a_cluster_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    assert _find_cluster() == "local"


def test_auto_takes_the_cluster_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert _find_cluster() == "head:6379"


@pytest.fixture
def started(no_session: None, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The folders that Ray was started with, without starting it."""
    folders: list[str | None] = []
    monkeypatch.setattr("ray.init", lambda *_, **options: folders.append(options["_temp_dir"]))
    monkeypatch.setattr("ray.shutdown", lambda: None)
    return folders


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize("problem", ["long", "longer in bytes", "a file", "below a file", "empty"])
def test_a_scratch_folder_that_cannot_hold_sockets_is_replaced_for_the_session(
    variable: str, problem: str, started: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        file = Path(short) / "f"
        file.touch()
        folder = {
            "long": f"{short}/{'d' * 80}", "longer in bytes": f"{short}/{'ü' * (36 - len(short))}", "a file": str(file),
            "below a file": f"{file}/d", "empty": "",
        }[problem]  # fmt: skip
        monkeypatch.setenv(variable, folder)
        with ray_session("local"):
            (own,) = started
            assert own is not None
            assert len(own) <= SOCKETS_FOLDER_BYTES
            assert Path(own).is_dir()
        assert not Path(own).exists()


def test_a_short_scratch_folder_stays_rays(started: list[str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("TMPDIR", short)
        with ray_session("local"):
            assert started == [None]


def test_that_ray_is_being_started_is_said_before_it_is(started: list[str | None]) -> None:
    said = list[tuple[str, bool]]()
    with ray_session("local", say=lambda line: said.append((line, bool(started)))):
        assert said == [("starting Ray ...", False)]


def test_without_any_folder_for_sockets_nothing_is_started(
    started: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null")
    monkeypatch.setattr("harness.connection.SHORT_FOLDERS", ("/dev/null",))
    with pytest.raises(UsageError, match=r"^Ray must have a folder that can be written[^\n]*set RAY_TMPDIR to one$"):
        ray_session("local").__enter__()
    assert not started


@pytest.mark.parametrize("writable", [True, False])
def test_a_home_that_takes_no_token_is_none_that_ray_needs(
    writable: bool, started: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path if writable else tmp_path / "file"))
    with ray_session("local"):
        assert started
        assert ("RAY_AUTH_TOKEN" in os.environ) is not writable


@pytest.mark.parametrize("alive", [True, False])
def test_what_dies_beside_a_raylet_that_ends_has_died_with_it(alive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    node = SimpleNamespace(head=True, node_ip_address="10.0.0.1", get_logs_dir_path=lambda: "/logs")
    monkeypatch.setattr("ray._private.worker._global_node", node)
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    monkeypatch.setattr("ray.nodes", lambda: [{"NodeID": "here", "Alive": alive}, {"NodeID": "there", "Alive": True}])
    monkeypatch.setattr("harness.connection.ray_away", lambda: None)
    monkeypatch.setattr("harness.connection.RAYLET_ENDS_S", 0.15)
    with nullcontext() if alive else pytest.raises(RayLostError, match=r"raylet at .* ended"):
        check_own_node()


@pytest.mark.parametrize(
    ("what", "head", "waits"), [("GCS", False, True), ("GCS", True, False), ("raylet", False, False)]
)
def test_the_gcs_of_a_cluster_that_was_joined_is_waited_for(
    what: str, head: bool, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray._private.worker._global_node", SimpleNamespace(head=head))
    away: list[str | None] = [f"Ray's {what} died"]
    monkeypatch.setattr("harness.connection.ray_away", lambda: away[0])
    with nullcontext() if waits else pytest.raises(RayLostError):
        assert not check_ray()
    if waits:
        monkeypatch.setattr("harness.connection.GCS_PATIENCE_S", -1.0)
        with pytest.raises(RayLostError):
            check_ray()
    away[0] = None
    assert check_ray()
