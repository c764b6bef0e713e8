"""The chart on a real API server: what an install makes and allows, what an upgrade keeps and an uninstall leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.cluster.crds import wait_until_served
from tests.cluster.errors import ClusterError
from tests.cluster.pytest_support import control_plane_or_skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.access import ControlPlane

_CHART = str(Path(__file__).parents[2] / "charts" / "gpuwaste")
_NAMESPACE = "gpuwaste"
_OPERATOR = f"system:serviceaccount:{_NAMESPACE}:gpuwaste-operator"
_SECRETS = ("gpuwaste-agent-tls", "gpuwaste-operator-tls")


@pytest.fixture(scope="module")
def control_plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    with control_plane_or_skip(pytestconfig, controllers=False) as access:
        yield access


@pytest.fixture
def release(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.helm("install", "gpuwaste", _CHART, "--namespace", _NAMESPACE, "--create-namespace")
    yield control_plane
    control_plane.helm("uninstall", "gpuwaste", "--namespace", _NAMESPACE, "--ignore-not-found")
    # The next install makes it again; it is kept for people.
    control_plane.kubectl("delete", "pvc", "--all", "-n", _NAMESPACE, "--wait=false")


_EVERYTHING = {
    "clusterName": "east",
    "image": {"registry": "images.invalid", "pullSecrets": ["pull"]},
    "tls": {"agentSecret": "a", "operatorSecret": "o"},
    "operator": {
        "store": {"persistence": {"storageClassName": "fast", "annotations": {"a": "b"}}},
        "serviceAccount": {"annotations": {"role": "x"}},
        "extraEnv": [{"name": "A", "value": "1"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "priorityClassName": "system-cluster-critical",
    },
    "agent": {
        "processAttribution": False,
        "migMonitoring": True,
        "driver": {"libraryPath": "/usr/lib/libnvidia-ml.so.1"},
        "dcgmExporterUrl": "http://$(HOST_IP):9400/metrics",
        "runtimeClassName": "nvidia",
        "nodeExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}],
        "extraArgs": ["--kubelet-seconds=1"],
        "extraEnv": [{"name": "A", "value": "1"}],
        "extraVolumes": [{"name": "x", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "x", "mountPath": "/x"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
    },
}
_VALUES = {
    "as it is": {},
    "with everything": _EVERYTHING,
    "with an object store": {"operator": {"store": {"url": "s3://bucket/gpuwaste"}}},
    "without agents and definitions": {"agent": {"enabled": False}, "crds": {"enabled": False}},
}


def drawn(access: ControlPlane, values: dict[str, Any]) -> str:
    """What helm would send, as YAML."""
    file = access.folder / "values.json"
    file.write_text(json.dumps(values))
    return access.helm("template", "gpuwaste", _CHART, "--namespace", "strict", "--values", str(file))


@pytest.mark.smoke
@pytest.mark.parametrize("name", _VALUES)
def test_the_api_server_knows_every_field(control_plane: ControlPlane, name: str) -> None:
    """helm itself sends fields that nobody knows, and the API server drops them without a word."""
    control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict"}})
    strictly = ("--dry-run=server", "--validate=strict", "-f", "-")
    said = control_plane.kubectl("apply", *strictly, input=drawn(control_plane, _VALUES[name]))
    assert "deployment.apps/gpuwaste-operator created (server dry run)" in said
    bad = drawn(control_plane, _VALUES[name]).replace("serviceAccountName:", "serviceAcountName:")
    with pytest.raises(ClusterError, match="serviceAcountName"):
        control_plane.kubectl("apply", *strictly, input=bad)


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["as it is", "with everything"])
def test_pods_keep_to_the_security_level_that_the_docs_say(control_plane: ControlPlane, name: str) -> None:
    objects = [each for each in yaml.safe_load_all(drawn(control_plane, _VALUES[name])) if each]
    for level in ("restricted", "privileged"):
        labels = {"pod-security.kubernetes.io/enforce": level}
        metadata = {"name": f"psa-{level}", "labels": labels}
        control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def accepted(kind: str, level: str) -> bool:
        (owner,) = (each for each in objects if each["kind"] == kind)
        # Neither the service account nor the classes are there.
        left_out = ("serviceAccountName", "runtimeClassName", "priorityClassName")
        spec = {key: value for key, value in owner["spec"]["template"]["spec"].items() if key not in left_out}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": f"psa-{level}"}, "spec": spec}
        try:
            control_plane.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(body))
        except ClusterError as error:
            if "violates PodSecurity" in str(error):
                return False
            raise
        return True

    assert accepted("Deployment", "restricted")
    assert accepted("DaemonSet", "privileged")
    # Its folders of the node alone need more.
    assert not accepted("DaemonSet", "restricted")


def certificates(access: ControlPlane) -> list[dict[str, Any]]:
    return [access.get("secret", name, "-n", _NAMESPACE)["data"] for name in _SECRETS]


def may(access: ControlPlane, verb: str, resource: str) -> bool:
    try:
        answer = access.kubectl("auth", "can-i", verb, resource, "--all-namespaces", f"--as={_OPERATOR}")
    except ClusterError:  # `no` is exit code 1
        return False
    return answer.strip() == "yes"


def test_all_objects_are_accepted_and_the_definitions_served(release: ControlPlane) -> None:
    found = release.get("deployment,daemonset,service,serviceaccount,pvc", "-n", _NAMESPACE)["items"]
    made = {(each["kind"], each["metadata"]["name"]) for each in found}
    assert made >= {
        ("Deployment", "gpuwaste-operator"),
        ("DaemonSet", "gpuwaste-agent"),
        ("Service", "gpuwaste-operator"),
        ("Service", "gpuwaste-agent"),
        ("ServiceAccount", "gpuwaste-operator"),
        ("ServiceAccount", "gpuwaste-agent"),
        ("PersistentVolumeClaim", "gpuwaste-operator"),
    }
    wait_until_served(release, ["gpuwastes.gpuwaste.dev"])
    assert release.get("gpuwaste", "--all-namespaces")["items"] == []


def test_what_the_operator_may_do(release: ControlPlane) -> None:
    for verb, resource in (
        ("watch", "pods"),
        ("watch", "nodes"),
        ("get", "deployments.apps"),
        ("patch", "gpuwastes.gpuwaste.dev"),
        ("patch", "gpuwastes.gpuwaste.dev/status"),
        ("create", "rightsizingplans.gpuwaste.dev"),
    ):
        assert may(release, verb, resource), (verb, resource)
    for verb, resource in (
        ("get", "secrets"),
        ("get", "configmaps"),
        ("delete", "pods"),
        ("create", "pods/eviction"),
        ("patch", "nodes"),
        ("patch", "deployments.apps"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
    ):
        assert not may(release, verb, resource), (verb, resource)


def test_an_upgrade_keeps_the_certificates(release: ControlPlane) -> None:
    before = certificates(release)
    release.helm("upgrade", "gpuwaste", _CHART, "--namespace", _NAMESPACE, "--set", "clusterName=east")
    assert certificates(release) == before
    release.kubectl("delete", "secret", _SECRETS[0], "-n", _NAMESPACE)
    release.helm("upgrade", "gpuwaste", _CHART, "--namespace", _NAMESPACE)
    agent, operator = certificates(release)
    # One without the other is no use: both are new then, of one authority.
    assert agent["ca.crt"] == operator["ca.crt"] != before[0]["ca.crt"]


def test_an_uninstall_keeps_definitions_and_ledger(release: ControlPlane) -> None:
    release.helm("uninstall", "gpuwaste", "--namespace", _NAMESPACE)
    assert release.get("crd", "gpuwastes.gpuwaste.dev")["metadata"]["name"] == "gpuwastes.gpuwaste.dev"
    kept = release.get("pvc,deployment,daemonset,secret", "-n", _NAMESPACE)["items"]
    assert [each["kind"] for each in kept] == ["PersistentVolumeClaim"]
    # Under its old name the next install takes over what was kept.
    release.helm("install", "gpuwaste", _CHART, "--namespace", _NAMESPACE)
