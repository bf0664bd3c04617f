"""The files for `ray up` are valid by Ray's own schema, and let nobody in without the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_paths import CLUSTER
from ray.autoscaler._private.util import prepare_config, validate_config

FILES = sorted((CLUSTER / "ray").glob("*.yaml"))


def name(path: Path) -> str:
    return path.stem


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def test_there_is_one_for_a_cloud_and_one_for_own_machines() -> None:
    assert {load(path)["provider"]["type"] for path in FILES} == {"aws", "local"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_ray_takes_the_file(path: Path) -> None:
    validate_config(prepare_config(load(path)))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_field_that_ray_does_not_know_is_refused(path: Path) -> None:
    with pytest.raises(Exception, match="idle_minutes"):
        validate_config(prepare_config({**load(path), "idle_minutes": 5}))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_node_gets_the_token_and_asks_for_it(path: Path) -> None:
    config = prepare_config(load(path))
    assert config["file_mounts"]["~/.ray/auth_token"].endswith("/.ray/auth_token")
    if config.get("docker"):
        assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    else:
        starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
        assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_installed_that_the_file_does_not_name(path: Path) -> None:
    # Ray's defaults for AWS install another Ray.
    own, filled = load(path), prepare_config(load(path))
    common = own.get("setup_commands", [])
    assert filled["head_setup_commands"] == [*common, *own.get("head_setup_commands", [])]
    assert filled["worker_setup_commands"] == [*common, *own.get("worker_setup_commands", [])]


def test_the_driver_of_a_cloud_is_not_on_a_spot_node_and_trials_are_not_beside_it() -> None:
    config = load(CLUSTER / "ray" / "aws.yaml")
    head = config["available_node_types"][config["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0, "GPU": 0, "s4_driver": 1}
