"""Ray asks for a token wherever it is started, dashboards stay on loopback, and no secret is in a file or argument."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import ray
from cluster_paths import CLUSTER, logical_lines, text_files

FILES = text_files()
STARTS = [
    (path, line)
    for path in FILES
    for line in logical_lines(path)
    if re.search(r"\bray (start|symmetric-run) ", line) and not line.lstrip().startswith("#")
]
SECRETS = {
    "a token or key in letters and digits": re.compile(r"(?<![\w/.-])[0-9a-f]{32,}(?![\w])"),
    "a private key": re.compile(r"BEGIN [A-Z ]*PRIVATE KEY"),
    "a key of AWS": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "a password in an address": re.compile(r"://[^\s/:@$]+:[^\s/@]+@"),
    "a password or token given a value": re.compile(
        r"(?i)\b(\w*password|\w*_token|\w*secret_key)[ \t]*[=:](?!-)[ \t]*[\"']?(?!\.\.\.|\$|/|\n|$)[\w+-]+"
    ),
}


def name(path: Path) -> str:
    return str(path.relative_to(CLUSTER))


def test_the_starts_of_ray_are_found() -> None:
    assert {"onprem/ray-node.sh", "ray/aws.yaml", "slurm/exclusive.sbatch"} <= {name(path) for path, _ in STARTS}


@pytest.mark.parametrize("path", sorted({path for path, _ in STARTS}), ids=name)
def test_ray_is_started_with_a_token(path: Path) -> None:
    # On Slurm, job.sh sets it for all that srun starts.
    texts = path.read_text() + ((CLUSTER / "slurm" / "job.sh").read_text() if path.parent.name == "slurm" else "")
    assert re.search(r"RAY_AUTH_MODE=token\b", texts)


@pytest.mark.parametrize(("path", "line"), [(path, line) for path, line in STARTS if "--head" in line])
def test_a_heads_dashboard_is_on_loopback(path: Path, line: str) -> None:
    assert "--dashboard-host=127.0.0.1" in line


def test_rays_own_default_for_the_dashboard_is_loopback() -> None:
    # `ray symmetric-run` starts a head without saying where.
    source = (Path(ray.__file__).parent / "scripts" / "scripts.py").read_text()
    assert re.search(r'"--dashboard-host",\s+required=False,\s+default=get_localhost_ip\(\)', source)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_file_has_a_secret(path: Path) -> None:
    text = path.read_text()
    found = {what: match[0] for what, pattern in SECRETS.items() if (match := pattern.search(text))}
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "RAY_AUTH_TOKEN=abc123",
        "PGPASSWORD: hunter2",
        "postgresql://mlflow:hunter2@postgres/mlflow",
        f"token {'0a' * 32}",
        "POSTGRES_PASSWORD: 'x1'",
    ],
)
def test_a_secret_would_be_found(text: str) -> None:
    assert any(pattern.search(text) for pattern in SECRETS.values())
