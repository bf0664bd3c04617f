"""The benchmark of a card runs on a CPU, where every part has a number or says why it has none."""

import inspect
import json
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from invented.searches import made_search

import harness
from harness.tuning.config import SearchConfig
from trainers.config import TrainConfig
from trainers.data.splits import open_splits
from trainers.presets import load_preset

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "bench_gpu.py"
PARTS = ("ceilings", "step", "losses", "gains", "plan", "determinism", "memory", "faults", "processes", "gang")

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    file = tmp_path_factory.mktemp("bench") / "card.json"
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--quick", "--json", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return {name: part["rows"] for name, part in json.loads(file.read_text())["parts"].items()}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def values(rows: Rows, part: str, word: str) -> list[float]:
    """The figures of a part whose names hold a word."""
    return [row["value"] for row in rows[part] if word in row["what"] and row["value"] is not None]


def test_every_part_has_rows_and_every_row_a_number_or_a_reason(rows: Rows) -> None:
    assert tuple(rows) == PARTS
    assert all(found and all(row["value"] is not None or row["note"] for row in found) for found in rows.values())


def test_what_a_cpu_has_not_needs_cuda(rows: Rows) -> None:
    lacking = {part for part, found in rows.items() for row in found if row["note"] == "needs CUDA"}
    assert lacking == {"ceilings", "losses", "faults", "processes"}


@pytest.mark.parametrize(
    ("part", "word"), [("ceilings", ""), ("step", "step"), ("gains", "as it is"), ("processes", "process")]
)
def test_a_time_or_a_rate_is_positive(rows: Rows, part: str, word: str) -> None:
    found = values(rows, part, word)
    assert found
    assert min(found) > 0


def test_a_step_is_slower_than_its_roofline(rows: Rows) -> None:
    step, *stages = [row for row in rows["step"] if row["bound"] is not None]
    assert "student, backward" in {row["what"] for row in stages}
    assert step["value"] > step["bound"] > 0


def test_the_rooflines_of_the_stages_add_up_to_that_of_the_step(rows: Rows) -> None:
    whole, *stages = [row["bound"] for row in rows["step"] if row["bound"] is not None]
    assert sum(stages) == pytest.approx(whole, rel=0.05)  # short stages have no row


def test_losses_on_the_cpu_are_those_of_the_cpu(rows: Rows) -> None:
    assert set(values(rows, "losses", "")) == {0.0}


def test_a_training_repeats_bit_by_bit(rows: Rows) -> None:
    assert values(rows, "determinism", "differ") == [0, 0]


def test_the_tensors_of_a_step_are_those_that_a_plan_counts(rows: Rows) -> None:
    [row] = rows["plan"]
    assert row["value"] == pytest.approx(row["bound"], rel=0.01)


def test_trials_leave_no_memory_and_no_trace_in_the_next(rows: Rows) -> None:
    assert [row["value"] for row in rows["memory"]] == [0, 0]


def test_a_process_goes_on_after_it_ran_out_of_memory(rows: Rows) -> None:
    assert [row["value"] for row in rows["faults"] if row["of"] == "out of memory"] == [1, 0, 0]


def test_an_unknown_part_is_refused_in_a_line() -> None:
    from bench_gpu import main

    with pytest.raises(SystemExit) as refused:
        main(["--parts", "step,speed"])
    assert refused.value.code == 2


def test_a_part_that_fails_keeps_its_rows_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_gpu
    from gpu_rows import Row

    def fails(setting: Any, root: Path) -> Iterator[Any]:
        yield Row("first", 1.0)
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(bench_gpu, "PARTS", {"one": fails, "other": lambda setting, root: iter([Row("last", 2.0)])})
    threads = torch.get_num_threads()
    try:
        code = bench_gpu.main(["--device", "cpu", "--parts", "one,other", "--json", str(tmp_path / "j")])
    finally:
        torch.set_num_threads(threads)
    parts = json.loads((tmp_path / "j").read_text())["parts"]
    assert code == 1
    assert [row["what"] for row in parts["one"]["rows"]] == ["first", "the rest of the part"]
    assert parts["one"]["rows"][1]["note"] == "failed: RuntimeError: CUDA error"
    assert parts["other"]["rows"][0]["value"] == 2.0


def test_a_setting_that_fails_leaves_the_others_their_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_step
    from gpu_rows import Setting

    def get_ready(config: TrainConfig, device: torch.device) -> float:
        if config.compute.precision == "bfloat16":
            raise RuntimeError("no kernel\nis there")
        return 1.0

    monkeypatch.setattr(gpu_step, "get_ready", get_ready)
    monkeypatch.setattr(gpu_step, "step_s", lambda config, device, steps: 0.002)
    rows = {row.what: row for row in gpu_step.measure_gains(Setting(torch.device("cpu"), True), tmp_path)}
    assert (rows["bfloat16"].value, rows["bfloat16"].note) == (None, "failed: RuntimeError: no kernel is there")
    assert rows["as it is"].value == 2.0


def test_a_method_that_fails_leaves_the_others_their_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_losses
    from gpu_rows import Setting

    def losses(config: TrainConfig, device: torch.device) -> Any:
        if not config.uses_unlabelled:
            raise RuntimeError("no kernel")
        return [{"total": 1.0}], 0.0

    monkeypatch.setattr(gpu_losses, "_losses", losses)
    rows = {row.what: row for row in gpu_losses.measure_losses(Setting(torch.device("cpu"), True), tmp_path)}
    assert (rows["supervised"].value, rows["css_mix"].value) == (None, 0.0)


def test_the_gang_is_read_from_the_run_that_a_search_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_gang
    from gpu_rows import Setting

    signature = inspect.signature(harness.search)

    def search(*arguments: Any, **options: Any) -> None:
        given = signature.bind(*arguments, **options).arguments
        SearchConfig.of(**given["options"])
        assert given["experiment"].horizon == gpu_gang.STEPS
        made_search(given["storage"] / given["name"])

    monkeypatch.setattr(harness, "search", search)
    monkeypatch.setattr(gpu_gang, "_faults", lambda setting, root: [])
    rows = list(gpu_gang.measure_gang(Setting(torch.device("cuda")), tmp_path))
    assert {row.of for row in rows} == {"1 gang", "2 gangs", "4 gangs"}
    assert all(row.value > 0 for row in rows)


@pytest.mark.parametrize(
    ("found", "apart"), [(2.0, 0.0), (2.5, 0.25), (float("nan"), float("inf")), (float("-inf"), float("inf"))]
)
def test_losses_differ_relative_to_what_was_expected(found: float, apart: float) -> None:
    from gpu_losses import difference

    assert difference([{"contrast": 1.0, "total": found}], [{"contrast": 1.0, "total": 2.0}]) == apart


def test_a_process_that_fails_ends_all_of_them_with_its_reason() -> None:
    from gpu_processes import together

    with pytest.raises(RuntimeError, match="TypeError: must be real number"):
        together(math.sqrt, [(), ()])  # of a barrier


def test_each_warning_of_torch_about_a_wait_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu_losses import _counted_waits

    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with _counted_waits(torch.device("cuda")) as waits:
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert len(waits) == 2
    assert modes == ["warn", "default"]


@pytest.mark.parametrize("preset", ["voc_css_92", "cityscapes_css_186", "ade20k_css"])
@pytest.mark.filterwarnings("ignore:no training image that may be labelled holds")
def test_a_preset_of_the_paper_finds_its_parts_in_invented_images(preset: str, tmp_path: Path) -> None:
    from gpu_works import PAPER, _published

    assert preset in {name for _, name, _ in PAPER}
    config = _published(preset, (64, 96), tmp_path / preset)
    splits = open_splits(config.data)
    assert config.num_classes == load_preset(preset).num_classes
    assert min(len(splits.labelled), len(splits.unlabelled), len(splits.dev)) > 0
