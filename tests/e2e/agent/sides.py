"""Scenarios that run side by side on real kubelets, one simulated GPU each (some need two).

Each says which GPUs it has, which slices its device plugin offers, which pods run, and what is to be expected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.cluster.nodes.gpus import LOAD_IMAGE, a_gpu, an_instance
from tests.cluster.nodes.images import PAUSE_IMAGE

from gpuwaste_agent.simulate.scenario import ScenarioGpu

__all__ = ["SIDES", "Container", "Fault", "Pod", "Side", "steps"]

HOPPER, AMPERE, TURING = "H100-80GB", "A100-80GB", "T4-16GB"
_LAST_SECONDS = 1500


def steps(duties: list[float], *, width: float = 0.5, every: float = 17.3, memory_mib: int = 1000) -> tuple[str, ...]:
    """A load that goes through duties again and again, longer than any run."""
    count = int(_LAST_SECONDS / every)
    return tuple(
        f"{duties[i % len(duties)]}:{width}:{memory_mib + i}:0.2:0.3" + (f"@{i * every:.1f}" if i else "")
        for i in range(count)
    )


def flat(duty: float, width: float, memory_mib: int = 1000) -> tuple[str, ...]:
    return (f"{duty}:{width}:{memory_mib}:0.2:0.3",)


WAVE = [0.1, 0.9, 0.4, 0.0, 0.7, 0.25]
TURNS = [0.3, 0.05, 0.2, 0.0, 0.1, 0.15]


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container: how many slices of its scenario it asks for, and its load; without one it only waits.

    Attributes:
        gpus: UUIDs that the load goes onto by itself; else those that the container is given.
        restartable: A sidecar: an init container that runs on.
    """

    name: str = "main"
    slices: int = 1
    load: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    restartable: bool = False


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod; `claim` is the name of the ResourceClaim it uses instead of a device plugin's slices."""

    name: str
    containers: tuple[Container, ...]
    claim: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that goes wrong in the middle of the run."""

    kind: str
    after_s: float
    seconds: float | None = None
    xid: int = 0


@dataclass(frozen=True, kw_only=True)
class Side:
    """One scenario.

    Attributes:
        name: In the table.
        node: Number of the node that it runs on.
        gpus: Its GPUs.
        slices: Device ids that its plugin offers, as NVIDIA's or another plugin would write them.
        pods: What runs from before the first window to after the last one.
        claims: UUID of the device that each ResourceClaim selects, by the claim's name.
        host: Load of a process outside of all pods.
        fault: What goes wrong.
        measured: False where nobody can tell who used the parent, and nobody may pretend to.
        away_s: For how long, at most, the driver cannot be read.
        churn: Short pods that come and go, so many.
        recreated: The only pod is deleted and made again under the same name in the middle.
        stepped: It is judged by the agent whose node clock is stepped.
    """

    name: str
    node: int
    gpus: tuple[ScenarioGpu, ...]
    slices: tuple[str, ...] = ()
    pods: tuple[Pod, ...] = ()
    claims: dict[str, str] = field(default_factory=dict)
    host: tuple[str, ...] = ()
    fault: Fault | None = None
    measured: bool = True
    away_s: float = 0.0
    churn: int = 0
    recreated: bool = False
    stepped: bool = False

    @property
    def key(self) -> str:
        """A word for names of resources and pods."""
        return "".join(c if c.isalnum() else "-" for c in self.name.lower()).strip("-").replace("--", "-")[:40]


def manifest(side: Side, pod: Pod, *, resource: str, node: str, state: str) -> dict[str, Any]:
    """The pod as it is sent to the API server."""
    made, inits = [], []
    for container in pod.containers:
        one: dict[str, Any] = {"name": container.name, "imagePullPolicy": "Never"}
        one["image"] = LOAD_IMAGE if container.load else PAUSE_IMAGE
        chosen = [word for uuid in container.gpus for word in ("--gpu", uuid)]
        one["args"] = [*chosen, *container.load] if container.load else []
        one["resources"] = {"limits": {resource: str(container.slices)}} if container.slices else {}
        if pod.claim:
            one["resources"] = {"claims": [{"name": "gpu"}]}
        if container.gpus:
            one["volumeMounts"] = [{"name": "driver", "mountPath": "/run/gpuwaste-sim/nvml.state"}]
        if container.restartable:
            inits.append({**one, "restartPolicy": "Always"})
        else:
            made.append(one)
    spec: dict[str, Any] = {
        "containers": made,
        "initContainers": inits,
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {"kubernetes.io/hostname": node},
        "volumes": [{"name": "driver", "hostPath": {"path": state, "type": "File"}}],
    }
    if pod.claim:
        spec["resourceClaims"] = [{"name": "gpu", "resourceClaimName": pod.claim}]
    metadata = {"name": pod.name, "namespace": "default", "annotations": dict(pod.annotations)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


class _Numbers:
    """Numbers of the GPUs that each node has been given."""

    def __init__(self) -> None:
        self._next: dict[int, int] = {}

    def gpu(self, node: int, product: str, *layout: tuple[str, int], strategy: str = "none") -> ScenarioGpu:
        index = self._next.get(node, 0)
        self._next[node] = index + 1
        instances = [an_instance(node, index, *part) for part in layout] if layout else None
        made = a_gpu(node, index, product, instances)
        replicas = 1 if strategy == "none" else 8
        return ScenarioGpu(uuid=made.uuid, product=product, mig=made.mig, strategy=strategy, replicas=replicas)


_NUMBERS = _Numbers()


def _one(name: str, load: tuple[str, ...]) -> Pod:
    return Pod(name=name, containers=(Container(load=load),))


def exclusive(name: str, node: int, product: str, load: tuple[str, ...] = (), **more: Any) -> Side:
    gpu = _NUMBERS.gpu(node, product)
    key = Side(name=name, node=node, gpus=(gpu,)).key
    return Side(name=name, node=node, gpus=(gpu,), slices=(gpu.uuid,), pods=(_one(key, load),), **more)


def shared(name: str, node: int, product: str, loads: list[tuple[str, ...]], strategy: str = "time-slicing") -> Side:
    gpu = _NUMBERS.gpu(node, product, strategy=strategy)
    key = Side(name=name, node=node, gpus=(gpu,)).key
    slices = tuple(f"{gpu.uuid}::{n}" for n in range(len(loads)))
    pods = tuple(_one(f"{key}-{n}", load) for n, load in enumerate(loads))
    return Side(name=name, node=node, gpus=(gpu,), slices=slices, pods=pods)


def turns(count: int) -> list[tuple[str, ...]]:
    """Loads of containers that take turns and ask for no more than there is."""
    return [
        steps([round(duty * 2 / count, 2) for duty in TURNS[n % 6 :] + TURNS[: n % 6]], width=0.2 + 0.1 * n)
        for n in range(count)
    ]


def mig(name: str, node: int, product: str, *layout: tuple[str, int], busy: int, measured: bool = True) -> Side:
    """One pod on each of the first instances, by a load that names it: all instances are one resource here."""
    gpu = _NUMBERS.gpu(node, product, *layout)
    key = Side(name=name, node=node, gpus=(gpu,)).key
    pods = tuple(_one(f"{key}-{n}", steps(WAVE[n % 6 :] + WAVE[: n % 6])) for n in range(busy))
    return Side(name=name, node=node, gpus=(gpu,), slices=gpu.parent_ids, pods=pods, measured=measured)


def mig_shared(node: int) -> Side:
    gpu = _NUMBERS.gpu(node, HOPPER, ("3g.40gb", 0), strategy="time-slicing")
    slices = tuple(f"{gpu.parent_ids[0]}::{n}" for n in range(2))
    pods = tuple(_one(f"mig-shared-{n}", load) for n, load in enumerate(turns(2)))
    return Side(name="MIG and time-slicing", node=node, gpus=(gpu,), slices=slices, pods=pods, measured=False)


def claimed(name: str, node: int, *layout: tuple[str, int], pods: int = 1) -> Side:
    gpu = _NUMBERS.gpu(node, HOPPER, *layout, strategy="time-slicing" if pods > 1 else "none")
    (uuid, *_), key = gpu.parent_ids, Side(name=name, node=node, gpus=(gpu,)).key
    loads = [steps(WAVE)] if pods == 1 else turns(pods)
    made = tuple(
        Pod(name=f"{key}-{n}", claim=key, containers=(Container(slices=0, load=load, gpus=(uuid,)),))
        for n, load in enumerate(loads)
    )
    return Side(name=name, node=node, gpus=(gpu,), pods=made, claims={key: uuid})


def kai(node: int) -> Side:
    """A reservation pod holds the GPU, two tenants use it and hold nothing, as KAI's scheduler arranges it."""
    gpu = _NUMBERS.gpu(node, HOPPER, strategy="time-slicing")
    tenants = tuple(
        Pod(
            name=f"kai-tenant-{n}",
            annotations={"gpu-fraction": "0.5", "received-resource-type": "Fraction"},
            containers=(Container(slices=0, load=load, gpus=(gpu.uuid,)),),
        )
        for n, load in enumerate(turns(2))
    )
    reservation = Pod(name="gpu-reservation-node-abcde", containers=(Container(name="resource-reservation"),))
    return Side(
        name="KAI-like reservation, 2 tenants",
        node=node,
        gpus=(gpu,),
        slices=(gpu.uuid,),
        pods=(reservation, *tenants),
    )


def hami(node: int) -> Side:
    """HAMi's plugin offers `<uuid>-<n>`; which GPU a pod really gets stands in an annotation."""
    gpu = _NUMBERS.gpu(node, HOPPER, strategy="time-slicing")
    pods = tuple(
        Pod(
            name=f"hami-{n}",
            annotations={"hami.io/vgpu-devices-allocated": f"{gpu.uuid},NVIDIA,20000,30:;"},
            containers=(Container(load=load, gpus=(gpu.uuid,)),),
        )
        for n, load in enumerate(turns(2))
    )
    slices = tuple(f"{gpu.uuid}-{n}" for n in range(10))
    return Side(name="HAMi-like, 2 pods", node=node, gpus=(gpu,), slices=slices, pods=pods)


def several_gpus(node: int) -> Side:
    gpus = (_NUMBERS.gpu(node, HOPPER), _NUMBERS.gpu(node, HOPPER))
    pod = Pod(name="two-gpus", containers=(Container(slices=2, load=steps(WAVE)),))
    return Side(name="two GPUs in a container", node=node, gpus=gpus, slices=tuple(g.uuid for g in gpus), pods=(pod,))


def several_containers(node: int) -> Side:
    """A sidecar and a main container of one pod on replicas of one GPU: only their ids tell them apart."""
    gpu = _NUMBERS.gpu(node, HOPPER, strategy="time-slicing")
    first, second = turns(2)
    containers = (
        Container(name="sidecar", load=first, restartable=True),
        Container(name="main", load=second),
    )
    slices = tuple(f"{gpu.uuid}::{n}" for n in range(2))
    pod = Pod(name="several-containers", containers=containers)
    return Side(name="sidecar and main on one GPU", node=node, gpus=(gpu,), slices=slices, pods=(pod,))


def churn(node: int) -> Side:
    gpu = _NUMBERS.gpu(node, HOPPER, strategy="time-slicing")
    slices = tuple(f"{gpu.uuid}::{n}" for n in range(4))
    return Side(name="churn of 100 short pods", node=node, gpus=(gpu,), slices=slices, churn=100)


def beside_the_host(node: int) -> Side:
    gpu = _NUMBERS.gpu(node, TURING, strategy="time-slicing")
    return Side(
        name="process of the host beside a pod",
        node=node,
        gpus=(gpu,),
        slices=(gpu.uuid,),
        pods=(_one("beside-the-host", steps(TURNS)),),
        host=flat(0.2, 0.5),
    )


MEDIA = tuple(f"0.1:0.2:500:0:0:{0.15 * (i % 5):.2f}:0.1@{i * 31}" for i in range(_LAST_SECONDS // 31))

# A node has addresses for 29 pods. What concerns a whole driver has a node of its own.
SIDES: tuple[Side, ...] = (
    exclusive("exclusive H100", 0, HOPPER, steps(WAVE)),
    exclusive("exclusive A100", 0, AMPERE, steps(WAVE)),
    exclusive("exclusive T4", 0, TURING, steps(WAVE)),
    exclusive("held and idle, H100", 0, HOPPER),
    shared("2 pods time-sliced, H100", 0, HOPPER, turns(2)),
    shared("4 pods time-sliced, H100", 0, HOPPER, turns(4)),
    shared("8 pods time-sliced, H100", 0, HOPPER, turns(8)),
    shared("2 pods time-sliced, T4", 0, TURING, turns(2)),
    shared("equal duty, unequal width", 0, HOPPER, [flat(0.45, 0.95), flat(0.45, 0.05)]),
    shared("70/20 duty, unequal width", 0, HOPPER, [flat(0.7, 0.1), flat(0.2, 1.0)]),
    shared("oversubscribed", 0, HOPPER, [flat(0.9, 0.9), flat(0.9, 0.2)]),
    shared("MPS, 3 clients", 2, HOPPER, [flat(0.6, 0.3), flat(0.5, 0.3), flat(0.2, 0.2)], strategy="mps"),
    mig("MIG 7 x 1g, H100", 2, HOPPER, *(("1g.10gb", start) for start in range(7)), busy=7),
    mig("MIG mix, H100", 2, HOPPER, ("3g.40gb", 4), ("2g.20gb", 0), ("1g.10gb", 2), busy=3),
    mig("MIG, A100: no source", 2, AMPERE, ("3g.40gb", 0), ("3g.40gb", 4), busy=1, measured=False),
    several_containers(2),
    mig_shared(1),
    claimed("DRA claim of a GPU", 1),
    claimed("DRA claim of a MIG instance", 1, ("2g.20gb", 0), ("3g.40gb", 4)),
    claimed("DRA claim shared by 2 pods", 1, pods=2),
    kai(1),
    hami(1),
    several_gpus(1),
    churn(1),
    exclusive("application XID", 1, HOPPER, steps(WAVE), fault=Fault(kind="xid", after_s=100, xid=31)),
    exclusive("hardware XID", 1, HOPPER, steps(WAVE), fault=Fault(kind="xid", after_s=100, xid=79)),
    exclusive(
        "GPU lost and back", 1, HOPPER, flat(0.6, 0.5), fault=Fault(kind="lost", after_s=120, seconds=60), away_s=60
    ),
    exclusive("energy counter reset", 1, HOPPER, steps(WAVE), fault=Fault(kind="counter-reset", after_s=150)),
    shared("encoder and decoder, T4", 1, TURING, [MEDIA, ("0:0:400:0:0:0.25:0.5",)]),
    exclusive("re-created under the same name", 1, HOPPER, steps(WAVE), recreated=True),
    beside_the_host(2),
    exclusive("clock stepped", 2, HOPPER, flat(0.6, 0.5), stepped=True),
    exclusive(
        "driver reloaded",
        3,
        HOPPER,
        flat(0.6, 0.5),
        fault=Fault(kind="driver-reload", after_s=120, seconds=20),
        away_s=20,
    ),
)
