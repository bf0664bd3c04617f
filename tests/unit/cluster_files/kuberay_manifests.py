"""Kubernetes manifests of `cluster/kuberay`, put together as `kubectl kustomize` does, and schemas to check them by.

    python tests/unit/cluster_files/kuberay_manifests.py FOLDER

writes `kuberay_schemas.json` anew from a folder with KubeRay's ray.io_rayclusters.yaml and ray.io_rayjobs.yaml: what
they say of the fields that the manifests use, and nothing else allowed.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import yaml

KUBERAY = Path(__file__).parents[3] / "cluster" / "kuberay"
SCHEMAS = Path(__file__).parent / "kuberay_schemas.json"
FOLDERS = ("cluster", "train", "tune")
CRDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}
LOCAL = "config.kubernetes.io/local-config"
OPEN = "x-kubernetes-preserve-unknown-fields"
KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minItems", "minLength", "maxLength", "required")
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "labels": STRINGS, "annotations": STRINGS},
    "additionalProperties": False,
}
"""The definitions leave it to Kubernetes itself."""

Tree = dict[str, Any]


def documents(path: Path) -> list[Tree]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def render(folder: Path) -> list[Tree]:
    """Return what `kubectl kustomize` makes of a folder. Knows only what the folders of this project use."""
    plan = documents(folder / "kustomization.yaml")[0]
    found: list[Tree] = []
    for name in plan["resources"]:
        path = folder / name
        found += render(path) if path.is_dir() else documents(path)
    for replacement in plan.get("replacements", ()):
        value = _get(_only(found, replacement["source"]), replacement["source"]["fieldPath"].split("."))
        for target in replacement["targets"]:
            for path in target["fieldPaths"]:
                _set(_only(found, target["select"]), path.split("."), copy.deepcopy(value))
    for patch in plan.get("patches", ()):
        patched = _only(found, patch["target"])
        for change in yaml.safe_load(patch["patch"]):
            _set(patched, change["path"].strip("/").split("/"), change["value"])
    for image in plan.get("images", ()):
        for document in found:
            _rename_images(document, image["name"], f"{image['newName']}:{image['newTag']}")
    return found


def applied(folder: Path) -> list[Tree]:
    """Return what reaches the cluster: not what is only copied from."""
    return [document for document in render(folder) if LOCAL not in document["metadata"].get("annotations", {})]


def full_schema(folder: Path, kind: str) -> Tree:
    """Return the strict schema of a kind, from KubeRay's definition of it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load((folder / CRDS[kind]).read_text(), Loader=loader)  # noqa: S506  # a safe loader
    version = next(version for version in definition["spec"]["versions"] if version["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = METADATA
    return schema


def strict(schema: Tree) -> Tree:
    """Return a JSON schema that allows what this one names, and nothing else."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"], **({"pattern": schema["pattern"]} if "pattern" in schema else {})}
    made = {key: schema[key] for key in KEPT if key in schema}
    if "properties" in schema:
        made["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        made["additionalProperties"] = bool(schema.get(OPEN))
    elif isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        made["items"] = strict(schema["items"])
    return made


def prune(schema: Tree, values: list[Any]) -> Tree:
    """Return the schema without the fields that none of the values has."""
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {
            name: prune(field, [value[name] for value in values if name in value])
            for name, field in schema["properties"].items()
            if any(name in value for value in values) or name in schema.get("required", ())
        }
    if "items" in schema:
        made["items"] = prune(schema["items"], [item for value in values for item in value])
    return made


def pruned_schemas(crds: Path) -> dict[str, Tree]:
    """Return the strict schema of each kind, for the fields that the manifests use."""
    used = [document for folder in FOLDERS for document in applied(KUBERAY / folder)]
    return {
        kind: prune(full_schema(crds, kind), [document for document in used if document["kind"] == kind])
        for kind in CRDS
    }


def _only(found: list[Tree], wanted: Tree) -> Tree:
    (match,) = (
        document
        for document in found
        if document["kind"] == wanted["kind"] and document["metadata"]["name"] == wanted["name"]
    )
    return match


def _get(tree: Tree, path: list[str]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _set(tree: Tree, path: list[str], value: Any) -> None:
    _get(tree, path[:-1])[path[-1]] = value


def _rename_images(tree: Any, name: str, image: str) -> None:
    if isinstance(tree, dict):
        if tree.get("image") == name:
            tree["image"] = image
        for value in tree.values():
            _rename_images(value, name, image)
    elif isinstance(tree, list):
        for value in tree:
            _rename_images(value, name, image)


if __name__ == "__main__":
    SCHEMAS.write_text(json.dumps(pruned_schemas(Path(sys.argv[1])), indent=1, sort_keys=True) + "\n")
