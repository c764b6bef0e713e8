"""The chart, rendered by the real helm over the values that people set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.cluster.cache import cache_folder

from gpuwaste.pricing.pricelist import load_price_list
from gpuwaste.runtime.doctor.checks import OPERATOR_RIGHTS
from gpuwaste.settings.operator import load_settings
from gpuwaste_agent.main import _parser, _settings

CHART = Path(__file__).parents[3] / "charts" / "gpuwaste"
DRAWN = ["--set", "fullnameOverride=gw"]


@pytest.fixture(scope="module")
def helm() -> str:
    """The harness' own helm, else the user's."""
    found = sorted(cache_folder(os.environ).glob("clients-*/helm"))
    program = str(found[-1]) if found else shutil.which("helm")
    if program is None:
        reason = "helm is neither in the harness' cache (any integration test brings it there) nor in PATH"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return program


def ran(helm: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm, *args], capture_output=True, text=True, timeout=30, check=False)


def drawn(helm: str, **values: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """Objects by kind and name; values are given by their path, with `__` for the dot."""
    args = [f"--set-json={path.replace('__', '.')}={json.dumps(value, default=str)}" for path, value in values.items()]
    done = ran(helm, "template", "gw", str(CHART), "--namespace", "here", *DRAWN, *args)
    assert done.returncode == 0, done.stderr
    found = [each for each in yaml.safe_load_all(done.stdout) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pod(objects: dict[tuple[str, str], dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = objects[kind, name]["spec"]["template"]["spec"]
    return spec


def test_lint(helm: str) -> None:
    done = ran(helm, "lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


def test_the_definitions_are_the_subcharts(helm: str) -> None:
    of_kind = {kind for kind, _ in drawn(helm)}
    assert "CustomResourceDefinition" in of_kind
    assert "CustomResourceDefinition" not in {kind for kind, _ in drawn(helm, crds__enabled=False)}


def test_the_operator_takes_the_settings(helm: str, tmp_path: Path) -> None:
    given = {"poolLabel": "pool", "agents": {"pullPeriodSeconds": 5}, "plan": {"periodSeconds": 60}}
    prices = yaml.safe_load((CHART.parents[1] / "operator/gpuwaste/pricing/builtin.yaml").read_text())
    objects = drawn(helm, operator__settings=given, operator__priceList=prices, clusterName="east")
    data = objects["ConfigMap", "gw-operator"]["data"]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    settings = load_settings(tmp_path / "settings.yaml")
    assert settings.cluster_name == "east"
    assert settings.pool_label == "pool"
    assert settings.agents.pull_period_seconds == 5
    assert settings.agents.namespace == "here"
    assert settings.agents.tls is not None
    assert settings.agents.tls.server_name == "agent.gpuwaste.internal"
    assert str(settings.price_list) == "/etc/gpuwaste/config/prices.yaml"
    assert load_price_list(tmp_path / "prices.yaml") is not None


def test_the_operator_finds_the_agents_of_its_release(helm: str) -> None:
    objects = drawn(helm)
    text = yaml.safe_load(objects["ConfigMap", "gw-operator"]["data"]["settings.yaml"])
    wanted = dict(pair.split("=") for pair in text["agents"]["labelSelector"].split(","))
    labels = objects["DaemonSet", "gw-agent"]["spec"]["template"]["metadata"]["labels"]
    assert wanted.items() <= labels.items()
    assert not wanted.items() <= objects["Deployment", "gw-operator"]["spec"]["template"]["metadata"]["labels"].items()


def test_the_agent_understands_its_flags(helm: str) -> None:
    objects = drawn(
        helm, agent__processAttribution=False, agent__driver__libraryPath="/opt/nvidia/lib/libnvidia-ml.so.1"
    )
    (container,) = pod(objects, "DaemonSet", "gw-agent")["containers"]
    settings = _settings(_parser().parse_args(["--node", "n", *container["args"]]))
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    assert settings.tls is not None
    files = [settings.tls.cert, settings.tls.key, settings.tls.ca, settings.sources.nvml_library]
    assert {str(file.parent) for file in files if file} <= mounted
    for path in (settings.journal.parent, settings.sources.pod_resources.parent, settings.sources.pod_logs):
        assert str(path) in mounted
    assert not settings.sources.processes


@pytest.mark.parametrize("attributed", [True, False])
def test_the_agent_sees_the_nodes_processes_only_to_attribute_by_them(helm: str, *, attributed: bool) -> None:
    spec = pod(drawn(helm, agent__processAttribution=attributed), "DaemonSet", "gw-agent")
    assert spec["hostPID"] is attributed
    assert ("--no-processes" in spec["containers"][0]["args"]) is not attributed


def test_the_agent_may_do_little(helm: str) -> None:
    spec = pod(drawn(helm), "DaemonSet", "gw-agent")
    (container,) = spec["containers"]
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert spec["automountServiceAccountToken"] is False
    writable = [each["name"] for each in container["volumeMounts"] if not each.get("readOnly")]
    assert writable == ["journal"]
    (one,) = pod(drawn(helm, agent__migMonitoring=True), "DaemonSet", "gw-agent")["containers"]
    assert one["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN"]}
    # NVIDIA's runtime brings in the right to monitor instances only where it is asked to, and refuses it otherwise.
    asked = {"name": "NVIDIA_MIG_MONITOR_DEVICES", "value": "all"}
    assert asked in one["env"]
    assert asked not in container["env"]


def test_the_agent_has_a_token_only_to_list_resource_slices(helm: str) -> None:
    plain = drawn(helm)
    assert not [name for kind, name in plain if kind.startswith("ClusterRole") and name == "gw-agent"]
    assert "api-access" not in {each["name"] for each in pod(plain, "DaemonSet", "gw-agent")["volumes"]}
    objects = drawn(helm, agent__resourceSlices=True)
    assert objects["ClusterRole", "gw-agent"]["rules"] == [
        {"apiGroups": ["resource.k8s.io"], "resources": ["resourceslices"], "verbs": ["list"]}
    ]
    (subject,) = objects["ClusterRoleBinding", "gw-agent"]["subjects"]
    assert (subject["name"], subject["namespace"]) == ("gw-agent", "here")
    spec = pod(objects, "DaemonSet", "gw-agent")
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert "--resource-slices" in container["args"]
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in {each["mountPath"] for each in container["volumeMounts"]}


def test_the_agent_is_told_who_takes_what_it_leaves(helm: str) -> None:
    put = "https://bucket.invalid/left/$(NODE_NAME)?signature=x&more=y"
    (container,) = pod(
        drawn(helm, agent__leaving__flushPut=put, agent__leaving__spotNotice="aws"), "DaemonSet", "gw-agent"
    )["containers"]
    settings = _settings(_parser().parse_args(["--node", "n", *container["args"]]))
    own = "https://gw-operator.here.svc:9443/v1/windows"
    assert [one.name for one in settings.handovers] == ["operator.gpuwaste.internal", ""]
    assert [(one.method, one.url) for one in settings.handovers] == [("POST", own), ("PUT", put)]
    assert settings.notices is not None
    assert settings.notices.cloud == "aws"


def test_the_operator_takes_what_agents_leave(helm: str, tmp_path: Path) -> None:
    objects = drawn(helm)
    (tmp_path / "settings.yaml").write_text(objects["ConfigMap", "gw-operator"]["data"]["settings.yaml"])
    assert load_settings(tmp_path / "settings.yaml").receive_port == 9443
    ports = {each["name"]: each for each in objects["Service", "gw-operator"]["spec"]["ports"]}
    assert (ports["windows"]["port"], ports["windows"]["targetPort"]) == (9443, "windows")
    (container,) = pod(objects, "Deployment", "gw-operator")["containers"]
    assert {"name": "windows", "containerPort": 9443} in container["ports"]
    data = objects["Secret", "gw-operator-tls"]["data"]
    certificate = x509.load_pem_x509_certificate(b64decode(data["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "operator.gpuwaste.internal" in names.get_values_for_type(x509.DNSName)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(usage)


@pytest.mark.parametrize(("given", "flags"), [("off", []), ("https://x.invalid/w", ["--flush-to=https://x.invalid/w"])])
def test_agents_hand_over_elsewhere_or_to_nobody(helm: str, given: str, flags: list[str]) -> None:
    (container,) = pod(drawn(helm, agent__leaving__flushTo=given), "DaemonSet", "gw-agent")["containers"]
    assert [flag for flag in container["args"] if flag.startswith("--flush-to")] == flags


def test_the_agent_leaves_a_node_to_mig_manager(helm: str) -> None:
    more = [{"key": "zone", "operator": "In", "values": ["a"]}]
    spec = pod(drawn(helm, agent__nodeExpressions=more), "DaemonSet", "gw-agent")
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    paused = {"key": "nvidia.com/gpu.deploy.dcgm-exporter", "operator": "NotIn", "values": ["paused-for-mig-change"]}
    assert term["matchExpressions"] == [paused, *more]


def test_the_operator_is_restricted(helm: str) -> None:
    spec = pod(drawn(helm), "Deployment", "gw-operator")
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert not any(name in volume for volume in spec["volumes"] for name in ("hostPath", "nfs"))


def test_the_operator_writes_its_own_objects_only(helm: str) -> None:
    for rule in drawn(helm)["ClusterRole", "gw-operator"]["rules"]:
        if rule["resources"] == ["events"]:
            assert set(rule["verbs"]) == {"create", "patch"}
        elif rule["apiGroups"] != ["gpuwaste.dev"]:
            assert set(rule["verbs"]) <= {"get", "list", "watch"}, rule


def test_the_operator_has_every_right_that_the_doctor_asks_for(helm: str) -> None:
    rules = drawn(helm)["ClusterRole", "gw-operator"]["rules"]
    for right in OPERATOR_RIGHTS:
        assert any(
            right.group in rule["apiGroups"]
            and (right.resource in rule["resources"] or "*" in rule["resources"])
            and right.verb in rule["verbs"]
            for rule in rules
        ), right


@pytest.mark.parametrize(
    ("values", "volume", "claimed"),
    [
        pytest.param({}, {"persistentVolumeClaim": {"claimName": "gw-operator"}}, True, id="own claim"),
        pytest.param(
            {"operator__store__persistence__existingClaim": "mine"},
            {"persistentVolumeClaim": {"claimName": "mine"}},
            False,
            id="existing claim",
        ),
        pytest.param({"operator__store__persistence__enabled": False}, {"emptyDir": {}}, False, id="no claim"),
        pytest.param({"operator__store__url": "s3://bucket/x"}, {"emptyDir": {}}, False, id="object store"),
    ],
)
def test_where_the_ledger_lies(helm: str, values: dict[str, Any], volume: dict[str, Any], *, claimed: bool) -> None:
    objects = drawn(helm, **values)
    volumes = {each.pop("name"): each for each in pod(objects, "Deployment", "gw-operator")["volumes"]}
    assert volumes["store"] == volume
    assert (("PersistentVolumeClaim", "gw-operator") in objects) is claimed


def test_a_change_of_settings_restarts_the_operator(helm: str) -> None:
    sums = {
        objects["Deployment", "gw-operator"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for objects in (drawn(helm), drawn(helm), drawn(helm, clusterName="east"))
    }
    assert len(sums) == 2


def test_one_authority_signs_both_certificates(helm: str) -> None:
    objects = drawn(helm)
    made = {name: objects["Secret", f"gw-{name}-tls"]["data"] for name in ("agent", "operator")}
    assert made["agent"]["ca.crt"] == made["operator"]["ca.crt"]
    authority = x509.load_pem_x509_certificate(b64decode(made["agent"]["ca.crt"]))
    for name, data in made.items():
        certificate = x509.load_pem_x509_certificate(b64decode(data["tls.crt"]))
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [f"{name}.gpuwaste.internal"]
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == f"{name}.gpuwaste.internal"


def test_secrets_of_ones_own(helm: str) -> None:
    objects = drawn(helm, tls__agentSecret="a", tls__operatorSecret="o")
    assert not [name for kind, name in objects if kind == "Secret"]
    volumes = {each["name"]: each for each in pod(objects, "DaemonSet", "gw-agent")["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == "a"


def test_an_image_by_digest(helm: str) -> None:
    digest = f"sha256:{'0' * 64}"
    objects = drawn(helm, image__registry="images.invalid", agent__image__digest=digest)
    assert pod(objects, "DaemonSet", "gw-agent")["containers"][0]["image"] == f"images.invalid/gpuwaste/agent@{digest}"
    assert (
        pod(objects, "Deployment", "gw-operator")["containers"][0]["image"] == "images.invalid/gpuwaste/operator:0.1.0"
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param(["agent.intervalSeconds=0"], "intervalSeconds", id="interval"),
        pytest.param(["agent.typo=1"], "typo", id="unknown value"),
        pytest.param(["operator.settings.store=/x"], "operator.settings.store is set by the chart", id="store twice"),
        pytest.param(["operator.settings.agents.port=1"], "agents.port is set by the chart", id="port twice"),
        pytest.param(["tls.agentSecret=a"], "go together", id="one secret"),
    ],
)
def test_what_is_refused(helm: str, values: list[str], words: str) -> None:
    sets = [word for value in values for word in ("--set", value)]
    done = ran(helm, "template", "gw", str(CHART), *sets)
    assert done.returncode != 0
    assert words in done.stderr


def test_every_value_has_a_place_in_the_schema() -> None:
    def check(values: Any, schema: dict[str, Any], path: str) -> None:
        if isinstance(values, dict) and schema.get("properties"):
            for name, value in values.items():
                assert name in schema["properties"], f"{path}{name}"
                check(value, schema["properties"][name], f"{path}{name}.")

    check(
        yaml.safe_load((CHART / "values.yaml").read_text()), json.loads((CHART / "values.schema.json").read_text()), ""
    )


def test_the_operator_mounts_what_bills_come_from(helm: str) -> None:
    volume = {"name": "bills", "persistentVolumeClaim": {"claimName": "exports"}}
    mount = {"name": "bills", "mountPath": "/var/lib/bills", "readOnly": True}
    key = {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "bills", "key": "id"}}}
    values = {"operator__extraVolumes": [volume], "operator__extraVolumeMounts": [mount], "operator__extraEnv": [key]}
    spec = pod(drawn(helm, **values), "Deployment", "gw-operator")
    assert volume in spec["volumes"]
    (container,) = spec["containers"]
    assert mount in container["volumeMounts"]
    assert key in container["env"]
