"""GPU nodes without an agent, and why: from the DaemonSet, its pods and the nodes as they are."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from gpuwaste.runtime.doctor.findings import CheckFinding, listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gpuwaste.cluster.api import Json

__all__ = ["agent_findings", "why_no_agent"]

_CHECK = "agents"
_INSTALL = "install the chart: helm install gpuwaste (see docs/install.md)"
_NO_POD = ("the DaemonSet has made no pod yet", "kubectl describe daemonset: quota, admission or the controller")
_PAUSED = "nvidia.com/gpu.deploy.dcgm-exporter"


def agent_findings(nodes: Sequence[Json], daemon_sets: Sequence[Json], pods: Sequence[Json]) -> list[CheckFinding]:
    """One finding a reason.

    Args:
        nodes: GPU nodes.
        daemon_sets: of the agent, by its labels.
        pods: of the agent.
    """
    if not nodes:
        return [CheckFinding(check=_CHECK, state="info", message="the cluster has no GPU node")]
    if not daemon_sets:
        message = f"no agent DaemonSet; {len(nodes)} GPU nodes are not measured by agents"
        return [CheckFinding(check=_CHECK, state="warning", message=message, fix=f"{_INSTALL}, or use `gpuwaste scan`")]
    of_node = _best_by_node(pods)
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    good = 0
    for node in nodes:
        name = node["metadata"]["name"]
        found_reasons = [why_no_agent(node, one, of_node.get(name)) for one in daemon_sets]
        # Of several DaemonSets, one for each kind of node, that counts which the node is meant for.
        reason = next((one for one in found_reasons if one is None or one == _NO_POD), found_reasons[0])
        if reason is None:
            good += 1
        else:
            reasons[reason].append(name)
    found = [
        CheckFinding(check=_CHECK, state="failed", message=f"no agent on {listed(sorted(names))}: {why}", fix=fix)
        for (why, fix), names in sorted(reasons.items())
    ]
    if good:
        found.insert(
            0, CheckFinding(check=_CHECK, state="ok", message=f"an agent runs on {good} of {len(nodes)} nodes")
        )
    return found


def _best_by_node(pods: Sequence[Json]) -> dict[str, Json]:
    """The agent's pod of each node: of several the one that runs, else the newest."""
    found: dict[str, Json] = {}
    for pod in sorted(pods, key=_goodness):
        found[_node_of(pod)] = pod
    return found


def _goodness(pod: Json) -> tuple[bool, bool, str]:
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return _of_pod(pod) is None, not ended, str(pod["metadata"].get("creationTimestamp", ""))


def _node_of(pod: Json) -> str:
    """The node that a pod is on, or that the DaemonSet controller made it for."""
    spec = pod.get("spec", {})
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or () if not spec.get("nodeName") else ():
        for one in term.get("matchFields") or ():
            if one.get("key") == "metadata.name" and one.get("operator") == "In" and one.get("values"):
                return str(one["values"][0])
    return str(spec.get("nodeName", ""))


def why_no_agent(node: Json, daemon_set: Json, pod: Json | None) -> tuple[str, str] | None:
    """Why a node has no running agent, and what to do; None where it has one."""
    if pod is not None:
        return _of_pod(pod)
    spec = daemon_set.get("spec", {}).get("template", {}).get("spec", {})
    labels = node["metadata"].get("labels") or {}
    missing = {key: value for key, value in (spec.get("nodeSelector") or {}).items() if labels.get(key) != value}
    if missing:
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(missing.items()))
        return f"its nodeSelector wants {wanted}", "label the node, or change `agent.nodeSelector`"
    taints = [taint for taint in node.get("spec", {}).get("taints") or () if not _tolerated(taint, spec)]
    if taints:
        text = ", ".join(f"{taint['key']}={taint.get('value', '')}:{taint['effect']}" for taint in taints)
        return f"it does not tolerate the taint {text}", "add it to `agent.tolerations`"
    if labels.get(_PAUSED, "").startswith("paused"):
        return "mig-manager changes the node's layout", "wait until it is done; else see nvidia.com/mig.config.state"
    if not _affine(labels, spec):
        return "its node affinity leaves the node out", "change `agent.affinity`, or label the node"
    return _NO_POD


def _of_pod(pod: Json) -> tuple[str, str] | None:
    status = pod.get("status", {})
    conditions = {one.get("type"): one for one in status.get("conditions") or ()}
    if status.get("phase") == "Running" and conditions.get("Ready", {}).get("status") == "True":
        return None
    name = f"{pod['metadata'].get('namespace')}/{pod['metadata']['name']}"
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"its pod is not scheduled: {_line(scheduled.get('message', ''))}", f"kubectl describe pod of {name}"
    for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state = one.get("state") or {}
        why = state.get("waiting") or state.get("terminated") or {}
        if why.get("reason"):
            text = _line(why.get("message", ""))
            return f"its pod is in {why['reason']}{': ' + text if text else ''}", f"kubectl logs of {name}"
    return (
        f"its pod is {status.get('phase', 'Unknown')} and not ready",
        f"kubectl logs of {name}: `gpuwaste-agent doctor`",
    )


def _line(text: str) -> str:
    return " ".join(str(text).split())[:160]


def _tolerated(taint: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    if taint.get("effect") == "PreferNoSchedule" or str(taint.get("key", "")).startswith("node.kubernetes.io/"):
        return True  # the DaemonSet controller tolerates these itself
    return any(_matches(one, taint) for one in spec.get("tolerations") or ())


def _matches(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    key = toleration.get("key") or ""
    if toleration.get("operator") == "Exists":
        return key in ("", taint.get("key"))
    return key == taint.get("key") and (toleration.get("value") or "") == (taint.get("value") or "")


def _affine(labels: Mapping[str, str], spec: Mapping[str, Any]) -> bool:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or ()
    return not terms or any(_all(term.get("matchExpressions") or (), labels) for term in terms)


def _all(expressions: Iterable[Mapping[str, Any]], labels: Mapping[str, str]) -> bool:
    return all(_one(one, labels) for one in expressions)


def _one(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.get("key", ""))
    values: list[str] = list(expression.get("values") or ())
    operator = expression.get("operator")
    if operator in ("Gt", "Lt"):
        if value is None or not values or not (value.lstrip("-").isdecimal() and values[0].lstrip("-").isdecimal()):
            return False
        return int(value) > int(values[0]) if operator == "Gt" else int(value) < int(values[0])
    return {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }.get(str(operator), True)
