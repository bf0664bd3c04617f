"""pyproject.toml states the versions; what else names one agrees with it."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import ray
import yaml
from cluster_paths import CLUSTER, REPOSITORY, text_files
from kuberay_manifests import FOLDERS, KUBERAY, applied
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
REQUIREMENTS = {requirement.name: requirement.specifier for requirement in map(Requirement, PROJECT["dependencies"])}
DOCKERFILE = (CLUSTER / "docker" / "Dockerfile").read_text()


def test_rays_version_in_the_manifests_is_the_required_one() -> None:
    for folder in FOLDERS:
        for document in applied(KUBERAY / folder):
            spec = document["spec"].get("rayClusterSpec", document["spec"])
            if "rayVersion" in spec:
                assert spec["rayVersion"] in REQUIREMENTS["ray"]
                assert spec["rayVersion"].rsplit(".", 1)[0] == ray.__version__.rsplit(".", 1)[0]


def test_images_of_the_project_carry_its_version() -> None:
    pattern = re.compile(r"\b(s4-(?:harness|mlflow)):(\S+?)(?=[\s\"']|$)")
    tags = {tag for path in text_files() for _, tag in pattern.findall(path.read_text())}
    kustomization = yaml.safe_load((KUBERAY / "cluster" / "kustomization.yaml").read_text())
    tags |= {image["newTag"] for image in kustomization["images"]}
    assert tags == {PROJECT["version"]}


def test_the_images_have_a_python_that_the_project_takes() -> None:
    versions = set(re.findall(r"^FROM python:([\d.]+)", DOCKERFILE, re.MULTILINE))
    assert versions
    assert all(version in SpecifierSet(PROJECT["requires-python"]) for version in versions)


def test_the_dockerfile_repeats_no_version_of_a_requirement() -> None:
    for line in re.findall(r"pip install .*", DOCKERFILE):
        for name in REQUIREMENTS:
            assert not re.search(rf"(?<![\w-]){re.escape(name)}[\[=<>~!]", line)


def test_the_dockerfile_reads_the_requirements_of_pyproject() -> None:
    (program,) = re.findall(r"<<'PYTHON'\n(.*?)\nPYTHON", DOCKERFILE, re.DOTALL)
    written: dict[str, str] = {}
    files = {"pyproject.toml": (REPOSITORY / "pyproject.toml").read_text()}

    class FakePath:
        def __init__(self, name: str) -> None:
            self.name = name

        def read_text(self) -> str:
            return files[self.name]

        def write_text(self, text: str) -> None:
            written[self.name] = text

    exec(program.replace("from pathlib import Path", ""), {"Path": FakePath})  # noqa: S102  # our own file
    assert written["s4.txt"].splitlines() == PROJECT["dependencies"]
    assert written["mlflow.txt"] == next(line for line in PROJECT["dependencies"] if line.startswith("mlflow"))


def test_what_the_dockerfile_copies_is_let_through() -> None:
    allowed = (CLUSTER / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    sources = [
        word for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert f"!{source}" in allowed
        assert (REPOSITORY / source).exists()
