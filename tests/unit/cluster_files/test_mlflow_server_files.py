"""MLflow's server listens on loopback unless told, refuses other host names, and holds no secret in a file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_paths import CLUSTER

COMPOSE = CLUSTER / "mlflow" / "compose.yaml"
UNIT = CLUSTER / "mlflow" / "s4-mlflow.service"
INTERPOLATION = re.compile(r"(?<!\$)\$\{(\w+)(?::-([^}]*))?\}")
SERVICE_KEYS = {
    "build", "command", "depends_on", "environment", "healthcheck", "image", "networks", "ports", "restart", "secrets",
    "volumes",
}  # fmt: skip


def interpolate(text: str, **given: str) -> str:
    """Fill in variables as compose does: what is given, or the default."""
    return INTERPOLATION.sub(lambda match: given.get(match[1], match[2] or ""), text)


def compose(**given: str) -> dict[str, Any]:
    return yaml.safe_load(interpolate(COMPOSE.read_text(), **given))


def compose_command() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and not subprocess.run([*command, "version"], capture_output=True).returncode:
            return command
    return None


def test_compose_takes_its_file() -> None:
    command = compose_command()
    if command is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is installed")
    done = subprocess.run([*command, "--file", COMPOSE, "config", "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_services_use_is_declared() -> None:
    config = compose()
    assert set(config) == {"services", "networks", "volumes", "secrets"}
    for service in config["services"].values():
        assert set(service) <= SERVICE_KEYS
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(config["volumes"])
        assert set(service["networks"]) <= set(config["networks"])
        assert set(service["secrets"]) <= set(config["secrets"])
        assert set(service.get("depends_on", {})) <= set(config["services"])


def test_the_build_names_a_stage_of_the_dockerfile() -> None:
    build = compose()["services"]["mlflow"]["build"]
    context = (COMPOSE.parent / build["context"]).resolve()
    assert f" AS {build['target']}\n" in (context / build["dockerfile"]).read_text()


def test_it_listens_on_loopback_unless_told() -> None:
    (port,) = compose()["services"]["mlflow"]["ports"]
    assert port == "127.0.0.1:5000:5000"
    (port,) = compose(MLFLOW_LISTEN="10.0.0.5")["services"]["mlflow"]["ports"]
    assert port == "10.0.0.5:5000:5000"
    assert "ports" not in compose()["services"]["postgres"]


def test_a_name_is_allowed_with_and_without_its_port() -> None:
    hosts = compose(MLFLOW_NAME="mlflow.example.org")["services"]["mlflow"]["environment"][
        "MLFLOW_SERVER_ALLOWED_HOSTS"
    ]
    assert {"localhost", "localhost:5000", "mlflow.example.org", "mlflow.example.org:5000"} <= set(hosts.split(","))
    assert "*" not in hosts


def test_the_password_is_only_in_a_file_that_is_not_kept() -> None:
    config = compose()
    (secret,) = config["secrets"].values()
    assert Path(secret["file"]).parts[0] + "/" in (COMPOSE.parent / ".gitignore").read_text().split()
    assert config["services"]["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgres_password"  # noqa: S105
    # user@host, not user:password@host
    assert "mlflow@postgres:" in config["services"]["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]


def test_no_variable_with_a_default_is_a_secret() -> None:
    assert {match[1] for match in INTERPOLATION.finditer(COMPOSE.read_text())} == {"MLFLOW_LISTEN", "MLFLOW_NAME"}


def test_the_service_listens_on_loopback_and_allows_its_own_names() -> None:
    text = UNIT.read_text()
    assert re.search(r"^ExecStart=.* --host 127\.0\.0\.1 ", text, re.MULTILINE)
    (hosts,) = re.findall(r"^Environment=MLFLOW_SERVER_ALLOWED_HOSTS=(.*)$", text, re.MULTILINE)
    assert {"localhost", "localhost:5000"} <= set(hosts.split(","))


def test_systemd_takes_the_service(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    mlflow = Path(sys.executable).with_name("mlflow")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/s4/.venv/bin/mlflow", str(mlflow)))
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
