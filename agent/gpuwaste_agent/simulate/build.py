"""Makes up a day of a mixed GPU cluster: nodes, workloads on them, and what their processes do."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gpuwaste_agent.products import PRODUCTS
from gpuwaste_agent.simulate import loads
from gpuwaste_agent.simulate.fleet import NODE_KINDS
from gpuwaste_agent.simulate.scenario import (
    FOREVER,
    Scenario,
    ScenarioContainer,
    ScenarioGpu,
    ScenarioInstance,
    ScenarioLoad,
    ScenarioNode,
    ScenarioProcess,
)

if TYPE_CHECKING:
    from gpuwaste_agent.simulate.fleet import NodeKind

__all__ = ["NAMESPACES", "Cluster", "PlannedNode", "PlannedPod", "PlannedWorkload", "build_cluster"]

# Namespace, the team it belongs to, and how often it asks for a GPU.
NAMESPACES = (
    ("search-serving", "search", 5),
    ("ads-ranking", "ads", 4),
    ("research-nlp", "research", 4),
    ("research-vision", "research", 3),
    ("analytics", "analytics", 3),
    ("platform-ml", "platform", 2),
)

# What people do on a pool, by the first word of its name: (kind of work, weight).
_WORK = {
    "train": (("training", 5), ("notebook", 2), ("idle", 3)),
    "mig": (("serving", 4), ("notebook", 4), ("idle", 3)),
    "serve": (("serving", 7), ("idle", 3), ("notebook", 1)),
    "batch": (("batch", 4), ("idle", 3), ("serving", 2)),
    "render": (("batch", 3), ("serving", 3), ("idle", 3)),
    "dev": (("notebook", 6), ("idle", 3), ("serving", 1)),
    "share": (("serving", 5), ("notebook", 3), ("idle", 2)),
}
# What every cluster with such a pool has: a few busy GPUs, and on shared ones somebody who borrows.
_ALWAYS = (("train", "training"), ("train", "training"), ("serve", "busy"), ("share", "busy"), ("mig", "busy"))
_OWNERS = {
    "training": "Job",
    "busy": "Deployment",
    "batch": "Job",
    "serving": "Deployment",
    "idle": "Deployment",
    "notebook": "StatefulSet",
}
_FREE = 0.14  # part of the slices nobody holds
_MINUTE = 60


@dataclass(slots=True, kw_only=True)
class PlannedPod:
    """A pod and what it holds; times are seconds of the scenario, `created_s` may lie before it."""

    name: str
    uid: str
    node: str
    container: str
    container_id: str
    resource: str
    devices: tuple[str, ...]
    created_s: float
    from_s: float
    until_s: float
    work: str


@dataclass(slots=True, kw_only=True)
class PlannedWorkload:
    """The owner of pods."""

    kind: str
    name: str
    namespace: str
    team: str
    uid: str
    inner_uid: str
    created_s: float
    work: str
    pods: list[PlannedPod] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    """A node of a kind."""

    kind: NodeKind
    scenario: ScenarioNode
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The whole made-up cluster: what the agents see, and what Kubernetes knows of it."""

    scenario: Scenario
    nodes: tuple[PlannedNode, ...]
    workloads: tuple[PlannedWorkload, ...]
    start_unix_s: int
    length_s: int


class _Free(NamedTuple):
    node: int
    resource: str
    slice_id: str
    memory_mib: int


class _Builder:
    def __init__(self, seed: int, start_unix_s: int, length_s: int) -> None:
        self.rng = random.Random(seed)
        self.start_unix_s = start_unix_s
        self.length_s = length_s
        self.day_s = start_unix_s % 86_400
        self.free: list[_Free] = []
        self.containers: dict[int, list[ScenarioContainer]] = {}
        self.pids: dict[int, int] = {}
        self.workloads: list[PlannedWorkload] = []
        self.begun = self.ended = False

    def uid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def suffix(self, length: int) -> str:
        return "".join(self.rng.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(length))

    # --- nodes

    def node(self, number: int, kind: NodeKind) -> tuple[str, str, tuple[ScenarioGpu, ...]]:
        """Make a node's GPUs and note their slices as free."""
        gpus = []
        for group in kind.gpus:
            for _ in range(group.count):
                gpu = ScenarioGpu(
                    uuid=f"GPU-{self.uid()}",
                    product=kind.product,
                    mig=None
                    if group.layout is None
                    else tuple(
                        ScenarioInstance(uuid=f"MIG-{self.uid()}", profile=profile, start=start)
                        for profile, start in group.layout
                    ),
                    strategy=group.strategy,
                    replicas=group.replicas,
                )
                gpus.append(gpu)
                self._note_free(number, gpu, renamed=group.renamed)
        self.containers[number] = []
        self.pids[number] = 4000 + number * 17
        return f"{kind.name}-{number:02d}", self.uid(), tuple(gpus)

    def _note_free(self, number: int, gpu: ScenarioGpu, *, renamed: bool) -> None:
        product = PRODUCTS[gpu.product]
        profiles = {instance.uuid: product.profile(instance.profile) for instance in gpu.mig or ()}
        for slice_id in gpu.slice_ids():
            profile = profiles.get(slice_id.split("::", maxsplit=1)[0])
            memory = product.memory_mib // gpu.replicas
            resource = "nvidia.com/gpu.shared" if renamed else "nvidia.com/gpu"
            if profile is not None:
                resource = profile.resource_name
                memory = memory * profile.memory_units // profile.axis_units
            self.free.append(_Free(number, resource, slice_id, memory))

    # --- workloads

    def fill(self, kinds: list[NodeKind]) -> None:
        """Give slices to workloads until only the wanted part is free."""
        self.rng.shuffle(self.free)
        for number, kind in enumerate(kinds):
            own = [free for free in self.free if free.node == number]
            kept = own[: round(kind.spare * len(own))]
            self.free = [free for free in self.free if free not in kept]
        leave = round(len(self.free) * _FREE)
        for first_word, work in _ALWAYS:
            pool = next((kind.pool for kind in kinds if kind.pool.startswith(first_word + "-")), None)
            if pool is not None and len(self.free) > leave:
                self._workload(pool, work, kinds)
        while len(self.free) > leave:
            first = self.free[-1]
            pool = kinds[first.node].pool
            work = self._choose(_WORK[pool.split("-", maxsplit=1)[0]])
            if work == "training" and first.resource != "nvidia.com/gpu":
                work = "notebook"
            self._workload(pool, work, kinds)

    def _choose(self, weighted: tuple[tuple[str, int], ...]) -> str:
        return self.rng.choices([name for name, _ in weighted], [weight for _, weight in weighted])[0]

    def _workload(self, pool: str, work: str, kinds: list[NodeKind]) -> None:
        namespace, team, _ = self.rng.choices(NAMESPACES, [weight for _, _, weight in NAMESPACES])[0]
        name = f"{_NAMES[work][self.rng.randrange(len(_NAMES[work]))]}-{self.suffix(3)}"
        start, end = self._lifetime(work)
        workload = PlannedWorkload(
            kind=_OWNERS[work],
            name=name,
            namespace=namespace,
            team=team,
            uid=self.uid(),
            inner_uid=self.uid(),
            created_s=start - self.rng.randrange(2, 40),
            work=work,
        )
        replicas = self.rng.choices((1, 2, 3), (5, 3, 1))[0]
        per_pod = self.rng.choice((1, 2, 4)) if work == "training" else 1
        inner = self.suffix(9)
        for index in range(replicas):
            like = workload.pods[0] if workload.pods else None
            taken = self._take(pool, len(like.devices) if like else per_pod, like.resource if like else "", kinds)
            if taken:
                self._pod(workload, taken, index, inner, (start, end))
        if workload.pods:
            self.workloads.append(workload)

    def _take(self, pool: str, wanted: int, resource: str, kinds: list[NodeKind]) -> list[_Free]:
        """Slices of one node and resource for a pod; all pods of a workload take alike, so none where too few are left.

        The first pod (`resource` empty) takes what it finds of what it wants.
        """
        places: dict[tuple[int, str], list[_Free]] = {}
        for free in reversed(self.free):
            if kinds[free.node].pool == pool and resource in ("", free.resource):
                places.setdefault((free.node, free.resource), []).append(free)
        for found in places.values():
            if not resource or len(found) >= wanted:
                taken = found[:wanted]
                self.free = [free for free in self.free if free not in taken]
                return taken
        return []

    def _lifetime(self, work: str) -> tuple[float, float]:
        """Most pods outlive the day; some begin in it, some jobs end in it."""
        draw = self.rng.random()
        minutes = self.length_s // _MINUTE
        start, end = -float(self.rng.randrange(2 * 3600, 20 * 86_400, _MINUTE)), FOREVER
        late = draw < 0.12 or (work == "serving" and not self.begun)  # noqa: PLR2004 - one in eight begins in the day
        if late and minutes > 10:  # noqa: PLR2004
            self.begun = True
            start = float(self.rng.randrange(minutes // 6, minutes // 2) * _MINUTE)
        jobs = work in ("batch", "training") and minutes > 10  # noqa: PLR2004 - and ends
        if jobs and (self.rng.random() < 0.3 or not self.ended):  # noqa: PLR2004
            self.ended = True
            end = float(self.rng.randrange(minutes * 6 // 10, minutes * 9 // 10) * _MINUTE)
        return start, end

    def _pod(
        self,
        workload: PlannedWorkload,
        taken: list[_Free],
        index: int,
        inner: str,
        life: tuple[float, float],
    ) -> None:
        names = {
            "Deployment": f"{workload.name}-{inner}-{self.suffix(5)}",
            "StatefulSet": f"{workload.name}-{index}",
            "Job": f"{workload.name}-{index}-{self.suffix(5)}",
        }
        start, end = life
        node, work = taken[0].node, workload.work
        pod = PlannedPod(
            name=names[workload.kind],
            uid=self.uid(),
            node=str(node),
            container="main" if work != "notebook" else "notebook",
            container_id=f"{self.rng.getrandbits(256):064x}",
            resource=taken[0].resource,
            devices=tuple(free.slice_id for free in taken),
            created_s=start - self.rng.randrange(1, 25),
            from_s=start,
            until_s=end,
            work=work,
        )
        workload.pods.append(pod)
        processes = []
        for free in taken:
            self.pids[node] += self.rng.randrange(3, 400)
            process = self._process(free, self.pids[node], work, max(0.0, start), end)
            if process is not None:
                processes.append(process)
        self.containers[node].append(
            ScenarioContainer(
                namespace=workload.namespace,
                pod=pod.name,
                pod_uid=pod.uid,
                container=pod.container,
                container_id=pod.container_id,
                resource=pod.resource,
                devices=pod.devices,
                from_s=max(0.0, start),
                until_s=end,
                processes=tuple(processes),
            )
        )

    def _process(self, free: _Free, pid: int, work: str, start: float, end: float) -> ScenarioProcess | None:
        """The process on one slice; half of the idle holders do not even have one."""
        if work == "idle" and self.rng.random() < 0.5:  # noqa: PLR2004
            return None
        begin = start + self.rng.randrange(20, 400) if start > 0 else 0.0
        finish = end - self.rng.randrange(5, 55) if end < FOREVER else FOREVER
        last = int(min(finish, self.length_s))
        memory = int(free.memory_mib * self.rng.choice((0.1, 0.25, 0.5, 0.8)))
        load: tuple[ScenarioLoad, ...]
        if work in ("serving", "notebook"):
            shape = loads.serving if work == "serving" else loads.notebook
            load = shape(self.rng, int(begin), last, memory, self.day_s)
        else:
            load = _SHAPES[work](self.rng, int(begin), last, memory)
        return ScenarioProcess(
            pid=pid, parent=free.slice_id.split("::", maxsplit=1)[0], load=load, from_s=begin, until_s=finish
        )


_SHAPES = {"training": loads.training, "batch": loads.batch, "busy": loads.busy, "idle": loads.idle}
_NAMES = {
    "busy": ("llm-batch", "transcribe", "rank-live"),
    "training": ("finetune-llm", "pretrain-small", "train-ranker", "train-detector"),
    "batch": ("embed-backfill", "transcode", "score-catalog", "nightly-eval"),
    "serving": ("llm-chat", "reranker", "embedder", "image-tagger", "speech", "recommender"),
    "idle": ("demo-app", "old-model", "canary", "poc-chat"),
    "notebook": ("jupyter", "workspace", "labs"),
}


def build_cluster(*, nodes: int, start_unix_s: int, length_s: int, seed: int) -> Cluster:
    """Make up a cluster: the same one for the same arguments.

    Args:
        nodes: How many nodes; the kinds of `NODE_KINDS` in turn.
        start_unix_s: Start of the scenario, seconds since the epoch.
        length_s: How long load is made for.
        seed: Of the random numbers.
    """
    builder = _Builder(seed, start_unix_s, length_s)
    kinds = [NODE_KINDS[number % len(NODE_KINDS)] for number in range(nodes)]
    bare = [builder.node(number, kind) for number, kind in enumerate(kinds)]
    builder.fill(kinds)
    planned = []
    for number, (name, uid, gpus) in enumerate(bare):
        node = ScenarioNode(name=name, uid=uid, gpus=gpus, containers=tuple(builder.containers[number]))
        planned.append(PlannedNode(kind=kinds[number], scenario=node, number=number))
    for workload in builder.workloads:
        for pod in workload.pods:
            pod.node = planned[int(pod.node)].scenario.name
    return Cluster(
        scenario=Scenario(nodes=tuple(node.scenario for node in planned)),
        nodes=tuple(planned),
        workloads=tuple(builder.workloads),
        start_unix_s=start_unix_s,
        length_s=length_s,
    )
