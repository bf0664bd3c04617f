"""The manifests of `cluster/kuberay` are what KubeRay's own definitions allow, and what the project promises."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kuberay_manifests import (
    CRDS,
    FOLDERS,
    KUBERAY,
    SCHEMAS,
    applied,
    documents,
    full_schema,
    pruned_schemas,
)

Tree = dict[str, Any]
EXPECTED_KINDS = {"cluster": "RayCluster", "train": "RayJob", "tune": "RayJob"}


def ray_manifest(folder: str) -> Tree:
    (found,) = (document for document in applied(KUBERAY / folder) if document["kind"] in CRDS)
    return found


def cluster_spec(folder: str) -> Tree:
    manifest = ray_manifest(folder)
    return manifest["spec"] if manifest["kind"] == "RayCluster" else manifest["spec"]["rayClusterSpec"]


def pods(folder: str) -> list[Tree]:
    """Return the pod templates, the head's first."""
    spec = cluster_spec(folder)
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


def crds() -> Path:
    named = os.environ.get("S4_CRDS")
    if named is None:
        pytest.skip("S4_CRDS must name a folder with KubeRay's full definitions, it is not set")
    return Path(named)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_holds_what_its_name_says(folder: str) -> None:
    assert ray_manifest(folder)["kind"] == EXPECTED_KINDS[folder]
    assert ray_manifest(folder)["apiVersion"] == "ray.io/v1"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_manifest_has_only_fields_and_values_that_kuberay_defines(folder: str) -> None:
    manifest = ray_manifest(folder)
    jsonschema.validate(manifest, json.loads(SCHEMAS.read_text())[manifest["kind"]])


@pytest.mark.parametrize("path", ["spec", "spec/headGroupSpec/template/spec/containers/0", "spec/workerGroupSpecs/0"])
def test_a_field_that_kuberay_does_not_know_is_found(path: str) -> None:
    manifest = ray_manifest("cluster")
    place: Any = manifest
    for word in path.split("/"):
        place = place[int(word)] if word.isdecimal() else place[word]
    place["repicas"] = 2
    with pytest.raises(jsonschema.ValidationError, match="repicas"):
        jsonschema.validate(manifest, json.loads(SCHEMAS.read_text())["RayCluster"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_manifest_agrees_with_the_full_definitions(folder: str) -> None:
    manifest = ray_manifest(folder)
    jsonschema.validate(manifest, full_schema(crds(), manifest["kind"]))


def test_the_schemas_kept_here_are_those_of_the_full_definitions() -> None:
    assert json.loads(SCHEMAS.read_text()) == pruned_schemas(crds())


@pytest.mark.parametrize("folder", FOLDERS)
def test_kubectl_puts_the_files_together_in_the_same_way(folder: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(["kubectl", "kustomize", KUBERAY / folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    by_kind = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
    assert by_kind == {document["kind"]: document for document in applied(KUBERAY / folder)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_cluster_refuses_who_has_no_token(folder: str) -> None:
    assert cluster_spec(folder)["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_only_pods_of_the_cluster_and_the_operator_may_connect(folder: str) -> None:
    (policy,) = (document for document in applied(KUBERAY / folder) if document["kind"] == "NetworkPolicy")
    labels = policy["spec"]["podSelector"]["matchLabels"]
    assert all(labels.items() <= pod["metadata"]["labels"].items() for pod in pods(folder))
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    within, operator = policy["spec"]["ingress"]
    assert within == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert operator["ports"] == [{"port": 8265, "protocol": "TCP"}]


@pytest.mark.parametrize("folder", FOLDERS)
def test_trials_do_not_run_on_the_head(folder: str) -> None:
    params = cluster_spec(folder)["headGroupSpec"]["rayStartParams"]
    assert (params["num-cpus"], params["num-gpus"]) == ("0", "0")


@pytest.mark.parametrize("folder", ["train", "tune"])
def test_the_driver_asks_for_what_the_head_alone_has(folder: str) -> None:
    spec = ray_manifest(folder)["spec"]
    asked = json.loads(spec["entrypointResources"])
    # KubeRay hands the value to a shell, quotes and all.
    (words,) = shlex.split(cluster_spec(folder)["headGroupSpec"]["rayStartParams"]["resources"])
    assert asked == json.loads(words) == {"s4_driver": 1}
    assert all("resources" not in group["rayStartParams"] for group in cluster_spec(folder)["workerGroupSpecs"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_head_is_never_on_a_spot_node(folder: str) -> None:
    affinity = pods(folder)[0]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = affinity["nodeSelectorTerms"]
    refused = {rule["key"]: rule["operator"] for rule in term["matchExpressions"]}
    assert set(refused.values()) == {"NotIn"}
    assert {"cloud.google.com/gke-spot", "eks.amazonaws.com/capacityType", "karpenter.sh/capacity-type"} <= set(refused)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_pod_has_the_storage_and_shared_memory(folder: str) -> None:
    (claim,) = documents(KUBERAY / "storage.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods(folder):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
        assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"  # noqa: S108  # in the pod
        assert mounts["/mnt/s4"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


@pytest.mark.parametrize("folder", ["train", "tune"])
def test_a_job_that_failed_goes_on_in_a_new_cluster(folder: str) -> None:
    manifest = ray_manifest(folder)
    words = manifest["spec"]["entrypoint"].split()
    assert words[:2] == ["start-or-resume.sh", folder]
    assert words[words.index("--name") + 1] == manifest["metadata"]["name"]
    assert words[words.index("--storage") + 1].startswith("/mnt/s4/")
    assert manifest["spec"]["backoffLimit"] >= 1
    assert manifest["spec"]["shutdownAfterJobFinishes"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_deleting_a_job_or_cluster_leaves_the_storage(folder: str) -> None:
    assert "PersistentVolumeClaim" not in {document["kind"] for document in applied(KUBERAY / folder)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_container_runs_as_root(folder: str) -> None:
    for pod in pods(folder):
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert not pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"]
