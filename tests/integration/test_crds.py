"""The CRDs on a real API server: accepted, enforced, readable."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.crds import wait_until_served
from tests.cluster.errors import ClusterError
from tests.cluster.pytest_support import control_plane_or_skip
from tests.unit.api import samples

from gpuwaste import api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.access import ControlPlane

ROOT = Path(__file__).parents[2]
CRD_NAMES = [f"{info.plural}.{api.GROUP}" for info in api.KINDS.values()]
MANAGER = "--field-manager=gpuwaste-test"


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> ControlPlane:
    """The shared control plane with the CRDs of `crds/` served."""
    control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    wait_until_served(control_plane, CRD_NAMES)
    return control_plane


def apply(plane: ControlPlane, manifest: dict[str, Any], *options: str) -> None:
    plane.kubectl("apply", "--server-side", MANAGER, *options, "-f", "-", input=json.dumps(manifest))


def apply_whole(plane: ControlPlane, resource: api.AnyResource) -> None:
    apply(plane, resource.manifest())
    if resource.status is not None:
        apply(plane, resource.status_manifest(), "--subresource=status")


def read(plane: ControlPlane, resource: api.AnyResource) -> dict[str, Any]:
    where = ["-n", resource.metadata.namespace] if resource.metadata.namespace else []
    return plane.get(f"{resource.info.plural}.{api.GROUP}", resource.metadata.name, *where)


def in_namespace(resource: api.AnyResource, namespace: str) -> api.AnyResource:
    if resource.metadata.namespace is None:
        return resource
    return resource.model_copy(update={"metadata": resource.metadata.model_copy(update={"namespace": namespace})})


def without(plane: ControlPlane, resource: api.AnyResource) -> None:
    where = ["-n", resource.metadata.namespace] if resource.metadata.namespace else []
    plane.kubectl("delete", f"{resource.info.plural}.{api.GROUP}", resource.metadata.name, *where, "--ignore-not-found")


def test_every_crd_is_established_without_complaint(cluster: ControlPlane) -> None:
    for name in CRD_NAMES:
        conditions = {one["type"]: one for one in cluster.get("crd", name)["status"]["conditions"]}
        assert conditions["Established"]["status"] == "True"
        assert conditions["NamesAccepted"]["status"] == "True"
        assert conditions.get("NonStructuralSchema", {}).get("status") != "True", conditions


@pytest.mark.parametrize("kind", api.KINDS)
def test_a_valid_object_is_kept_whole(cluster: ControlPlane, namespace: str, kind: str) -> None:
    resource = in_namespace(samples.all_kinds()[kind], namespace)
    without(cluster, resource)
    apply_whole(cluster, resource)
    held = read(cluster, resource)
    back = api.parse(held)
    assert back.spec == resource.spec
    assert back.status == resource.status
    assert held["metadata"]["generation"] == 1, "the operator's own defaults and the server's are the same"
    without(cluster, resource)


def test_kubectl_get_prints_a_table_for_people(cluster: ControlPlane, namespace: str) -> None:
    apply_whole(cluster, in_namespace(samples.gpuwaste(), namespace))
    printed = cluster.kubectl("get", "gpuwaste", "-A")
    head, row = (line for line in printed.splitlines() if line.startswith(("NAMESPACE", f"{namespace} ")))
    assert " ".join(head.split()) == (
        "NAMESPACE NAME WORKLOAD GPUS HELD GPUH EFFECTIVE GPUH WASTE % COST/MONTH ADVICE AGE"
    )
    assert row.split()[:-1] == [
        namespace, "deployment-llm-0a1b2c3d", "Deployment/llm", "2", "48.00", "18.25", "62", "3,650.00", "USD",
        "share", "one", "GPU",
    ]  # fmt: skip
    wide = cluster.kubectl("get", "gpuw", "-n", namespace, "-o", "wide")
    assert all(word in wide for word in ("IDLE", "17.00", "H100-80GB", "ml", "High"))
    everything = cluster.kubectl("get", api.CATEGORY, "-A")
    assert "gpuwaste.gpuwaste.dev/deployment-llm-0a1b2c3d" in everything


def test_what_is_unknown_is_printed_as_unknown(cluster: ControlPlane, namespace: str) -> None:
    resource = in_namespace(samples.gpuwaste(), namespace)
    assert resource.status is not None
    unknown = resource.status.summary.model_copy(
        update={"cost_per_month": api.UNKNOWN, "effective_gpu_hours": api.UNMEASURED, "waste_percent": api.UNMEASURED}
    )
    apply_whole(
        cluster, resource.model_copy(update={"status": resource.status.model_copy(update={"summary": unknown})})
    )
    row = cluster.kubectl("get", "gpuwaste", "-n", namespace, "--no-headers")
    assert row.split()[3:7] == ["48.00", api.UNMEASURED, api.UNMEASURED, api.UNKNOWN]


def test_kubectl_explain_knows_the_fields(cluster: ControlPlane) -> None:
    # The server publishes schemas and discovery of new kinds some seconds after it serves them.
    deadline = time.monotonic() + 30
    while True:
        try:
            said = cluster.kubectl("explain", "gpuwaste.status.windows.netWasteGPUHours.idle")
            break
        except ClusterError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    assert "every measured engine was at zero" in " ".join(said.split())


def test_defaults_recommend_only(cluster: ControlPlane, namespace: str) -> None:
    bare = {
        "apiVersion": api.API_VERSION,
        "kind": "RightsizingPolicy",
        "metadata": {"name": "bare", "namespace": namespace},
        "spec": {},
    }
    apply(cluster, bare)
    held = cluster.get("rightsizingpolicies", "bare", "-n", namespace)
    assert held["spec"]["mode"] == "Recommend"
    assert held["spec"]["allowIrreversible"] is False
    assert held["spec"]["rate"]["maxActionsPerHour"] == 10
    assert api.RightsizingPolicy.parse(held).spec == api.RightsizingPolicySpec()


Change = dict[tuple[str | int, ...], Any]
DROP = object()
INVALID: dict[str, tuple[str, Change, str]] = {
    "a negative count": (
        "GPUReservation",
        {("spec", "count"): -1},
        "spec.count in body should be greater than or equal to 1",
    ),
    "a price that is no number": (
        "GPUReservation",
        {("spec", "price", "perGPUHour"): "two"},
        "spec.price.perGPUHour in body should match",
    ),
    "a float where a decimal string belongs": (
        "GPUReservation",
        {("spec", "price", "perGPUHour"): 1.9},
        "spec.price.perGPUHour in body must be of type string",
    ),
    "a negative price": ("GPUReservation", {("spec", "price", "perGPUHour"): "-2"}, "`price` must not be negative"),
    "two prices": (
        "GPUReservation",
        {("spec", "price", "total"): "100"},
        "`price` must have exactly one of `perGPUHour` and `total`",
    ),
    "no price": (
        "GPUReservation",
        {("spec", "price", "perGPUHour"): DROP},
        "`price` must have exactly one of `perGPUHour` and `total`",
    ),
    "a total without an end": (
        "GPUReservation",
        {
            ("spec", "price", "perGPUHour"): DROP,
            ("spec", "price", "total"): "100",
            ("spec", "term", "endTime"): DROP,
        },
        "`term.endTime` must be set where `price.total` is",
    ),
    "an end before the start": (
        "GPUReservation",
        {("spec", "term", "endTime"): "2020-01-01T00:00:00Z"},
        "`endTime` must be later than `startTime`",
    ),
    "a team without a name": (
        "GPUReservation",
        {("spec", "owner", "name"): DROP},
        "`name` must be set unless `kind` is 'Platform'",
    ),
    "an unknown mode": ("RightsizingPolicy", {("spec", "mode"): "Yolo"}, 'Unsupported value: "Yolo"'),
    "a schedule that is no cron": (
        "RightsizingPolicy",
        {("spec", "windows", 0, "schedule"): "at night"},
        "spec.windows[0].schedule in body should match",
    ),
    "a window without a length": (
        "RightsizingPolicy",
        {("spec", "windows", 0, "durationSeconds"): DROP},
        "spec.windows[0].durationSeconds: Required value",
    ),
    "releasing nodes without leave to": (
        "RightsizingPolicy",
        {("spec", "allowIrreversible"): False},
        "`allowIrreversible` must be true where `allowedActions` holds 'ReleaseNode'",
    ),
    "a saving without a currency": (
        "ClusterRightsizingPolicy",
        {("spec", "thresholds"): {"minSavingPerMonth": "10"}},
        "`currency` must be set together with `minSavingPerMonth`",
    ),
    "a selector without values": (
        "ClusterRightsizingPolicy",
        {("spec", "namespaceSelector", 0, "values"): DROP},
        "`values` must be set where `operator` is 'In' or 'NotIn'",
    ),
    "an unknown action": ("RightsizingAction", {("spec", "type"): "Explode"}, 'Unsupported value: "Explode"'),
    "an action on no workload": (
        "RightsizingAction",
        {("spec", "targetRef"): DROP},
        "`targetRef` must be set for an action on a workload",
    ),
    "an action on no node": (
        "RightsizingAction",
        {("spec", "type"): "DrainNode"},
        "`nodeRef` must be set for an action on a node",
    ),
    "a node given back that could return": (
        "RightsizingAction",
        {("spec", "type"): "ReleaseNode", ("spec", "nodeRef"): {"name": "gpu-1"}},
        "`reversible` must be 'Irreversible' where `type` is 'ReleaseNode'",
    ),
    "a probability above one": (
        "RightsizingAction",
        {("spec", "risk", "probability"): "1.5"},
        "spec.risk.probability in body should match",
    ),
    "a plan that hides actions": (
        "RightsizingPlan",
        {("spec", "actionCount"): 400, ("spec", "planURL"): DROP},
        "`planURL` must be set where `actions` does not hold all of them",
    ),
    "two actions of one name": (
        "RightsizingPlan",
        {("spec", "actions", 0, "name"): "action-0"},
        "Duplicate value",
    ),
    "neither schedule nor range": (
        "ChargebackReport",
        {("spec", "schedule"): DROP, ("spec", "period"): DROP},
        "`spec` must have exactly one of `schedule` and `range`",
    ),
    "a schedule without a period": (
        "ChargebackReport",
        {("spec", "period"): DROP},
        "`period` must be set together with `schedule`",
    ),
    "a bill by the day": (
        "ChargebackReport",
        {("spec", "billURL"): "s3://bills/focus", ("spec", "period"): "Day"},
        "`period` must be 'Month' where `billURL` is set",
    ),
    "a page of a bill": (
        "ChargebackReport",
        {("spec", "billURL"): "s3://bills", ("spec", "period"): "Month", ("spec", "formats"): ["FOCUS", "HTML"]},
        "`formats` must not hold 'HTML' where `billURL` is set",
    ),
    "a FOCUS version of the future": (
        "ChargebackReport",
        {("spec", "focusVersion"): "2.0"},
        "spec.focusVersion in body should match",
    ),
    "a workload without a name": (
        "GPUWaste",
        {("spec", "workloadRef", "name"): DROP},
        "spec.workloadRef.name: Required value",
    ),
    "a pool without a model": (
        "GPUPool",
        {("spec", "gpuModel"): ""},
        "spec.gpuModel in body should be at least 1 chars",
    ),
}


def changed(manifest: dict[str, Any], change: Change) -> dict[str, Any]:
    manifest = copy.deepcopy(manifest)
    for path, value in change.items():
        inner: Any = manifest
        for key in path[:-1]:
            inner = inner[key]
        if value is DROP:
            inner.pop(path[-1], None)
        else:
            inner[path[-1]] = value
    return manifest


@pytest.mark.parametrize(("kind", "change", "message"), INVALID.values(), ids=INVALID.keys())
def test_what_breaks_a_rule_is_refused_in_words(
    cluster: ControlPlane, namespace: str, kind: str, change: Change, message: str
) -> None:
    resource = in_namespace(samples.all_kinds()[kind], namespace)
    without(cluster, resource)
    manifest = resource.manifest()
    assert changed(manifest, change) != manifest
    with pytest.raises(ClusterError) as refused:
        cluster.kubectl("create", "-f", "-", input=json.dumps(changed(manifest, change)))
    assert message in str(refused.value)
    assert "Invalid" in str(refused.value) or "invalid" in str(refused.value)


Update = tuple["Callable[[], api.AnyResource]", Change, str]
UPDATES: dict[str, Update] = {
    "an action's spec": (
        lambda: samples.action("immutable"),
        {("spec", "disruption", "pods"): 2},
        "`spec` must not change; reject the action and let a new plan make another",
    ),
    "a stored undo": (
        lambda: samples.action("undo-stays"),
        {("status", "undo", "patches", 0, "patch"): "{}"},
        "`undo` must not change once it is stored",
    ),
    "an undo taken away": (
        lambda: samples.action("undo-kept"),
        {("status", "undo"): DROP},
        "`undo` must not change once it is stored",
    ),
    "the workload of a GPUWaste": (
        samples.gpuwaste,
        {("spec", "workloadRef", "name"): "other"},
        "`kind` and `name` must not change; make a new object for another workload",
    ),
    "the model of a GPUPool": (
        lambda: samples.all_kinds()["GPUPool"],
        {("spec", "gpuModel"): "A10"},
        "`spec` must not change; the operator makes a pool for each",
    ),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES.keys())
def test_what_is_set_once_stays(cluster: ControlPlane, namespace: str, update: Update) -> None:
    make, change, message = update
    status = any(path[0] == "status" for path in change)
    resource = in_namespace(make(), namespace)
    without(cluster, resource)
    apply_whole(cluster, resource)
    before = read(cluster, resource)
    new = changed(resource.status_manifest() if status else resource.manifest(), change)
    with pytest.raises(ClusterError, match="must not change") as refused:
        apply(cluster, new, *(["--subresource=status"] if status else []))
    assert message in str(refused.value)
    assert read(cluster, resource)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


def test_an_undo_larger_than_its_limit_is_refused(cluster: ControlPlane) -> None:
    resource = samples.action("undo-large")
    without(cluster, resource)
    apply(cluster, resource.manifest())
    manifest = resource.status_manifest()
    patch = manifest["status"]["undo"]["patches"][0]
    manifest["status"]["undo"]["patches"] = [{**patch, "patch": "x" * 40_000}, {**patch, "patch": "x" * 40_000}]
    with pytest.raises(ClusterError, match="must not hold more than 65536 characters in all"):
        apply(cluster, manifest, "--subresource=status")


def test_a_whole_plan_of_100_actions_is_kept(cluster: ControlPlane) -> None:
    spec = api.plan_spec(samples.plan(250))
    resource = api.RightsizingPlan(metadata=api.ObjectMeta(name="large"), spec=spec)
    without(cluster, resource)
    apply(cluster, resource.manifest())
    held = api.RightsizingPlan.parse(read(cluster, resource))
    assert held.spec == spec
    assert (len(held.spec.actions), held.spec.action_count) == (100, 250)


def test_status_is_out_of_reach_of_an_ordinary_write(cluster: ControlPlane, namespace: str) -> None:
    resource = in_namespace(samples.gpuwaste(), namespace)
    whole = resource.manifest() | {"status": resource.status_manifest()["status"]}
    apply(cluster, whole)
    assert "status" not in read(cluster, resource)


@pytest.fixture(scope="module")
def chart_cluster(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """A control plane of its own: the chart owns the CRDs on it."""
    with control_plane_or_skip(pytestconfig, controllers=False) as access:
        yield access


def test_the_chart_installs_upgrades_and_keeps_the_crds(chart_cluster: ControlPlane) -> None:
    chart = str(ROOT / "charts" / "gpuwaste-crds")
    chart_cluster.helm("lint", "--strict", chart)
    chart_cluster.helm("install", "crds", chart)
    wait_until_served(chart_cluster, CRD_NAMES)
    pool = samples.all_kinds()["GPUPool"]
    apply_whole(chart_cluster, pool)
    chart_cluster.helm("upgrade", "crds", chart, "--set", "labels.tier=platform")
    assert chart_cluster.get("crd", CRD_NAMES[0])["metadata"]["labels"]["tier"] == "platform"
    chart_cluster.helm("uninstall", "crds")
    assert api.parse(read(chart_cluster, pool)) is not None
    # Another release takes them over, and without `keep` an uninstall removes them.
    chart_cluster.helm("install", "again", chart, "--take-ownership", "--set", "keep=false")
    chart_cluster.helm("uninstall", "again")
    chart_cluster.kubectl("wait", "--for=delete", "--timeout=20s", *(f"crd/{name}" for name in CRD_NAMES))


def test_the_chart_and_the_plain_manifests_say_the_same(chart_cluster: ControlPlane) -> None:
    import yaml

    chart = str(ROOT / "charts" / "gpuwaste-crds")
    rendered = {
        one["metadata"]["name"]: one
        for one in yaml.safe_load_all(chart_cluster.helm("template", "crds", chart))
        if one is not None
    }
    assert set(rendered) == set(CRD_NAMES)
    for info in api.KINDS.values():
        plain = yaml.safe_load((ROOT / "crds" / f"{info.plural}.yaml").read_text())
        assert rendered[plain["metadata"]["name"]]["spec"] == plain["spec"]
        kept = rendered[plain["metadata"]["name"]]["metadata"]["annotations"]
        assert kept == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [("kep=true", "kep"), ("keep=perhaps", "keep"), ("labels.tier=true", "tier")],
    ids=["a misspelt value", "a value of the wrong type", "a label that is no text"],
)
def test_wrong_chart_values_are_refused(chart_cluster: ControlPlane, setting: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        chart_cluster.helm("template", "crds", str(ROOT / "charts" / "gpuwaste-crds"), "--set", setting)
