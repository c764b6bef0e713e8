"""Small clusters as facts, for plans."""

import time
from dataclasses import replace

from tests.helpers import facts

from gpuwaste.model.facts import ContainerRequest, Fact, OwnerRef
from gpuwaste.packing.engine import solve

HOUR = facts.HOUR
DEPLOYMENT = OwnerRef(api_version="apps/v1", kind="Deployment", name="web", uid="uid-web")


def node(name, *, gpus=8, cpu=64_000, memory_gib=512, price="2.00", product="H100-80GB", **more):
    """A node with its GPUs and its price, as facts."""
    replicas = more.pop("replicas", 1)
    currency = more.pop("currency", "USD")
    source = more.pop("source", "test")
    mig = more.pop("mig", ())
    made = facts.node(name, gpus=gpus * replicas, **more)
    made = replace(made, data=replace(made.data, cpu_milli=cpu, memory_bytes=memory_gib * 2**30))
    found = [made]
    for index in range(gpus):
        gpu = facts.gpu(f"GPU-{name}-{index}", on=name, product=product, mig=mig, replicas=replicas)
        sharing = "EXCLUSIVE" if replicas == 1 else "TIME_SLICING"
        found.append(replace(gpu, data=replace(gpu.data, index=index, sharing=sharing)))
    if price is not None:
        paid = facts.price(price, on=name, product=product, currency=currency)
        found.append(replace(paid, data=replace(paid.data, source=source)))
    return found


def pod(name, *, on, gpus=1, cpu=1000, memory_gib=4, owner=DEPLOYMENT, **more):
    """A pod that a Deployment owns."""
    annotations = more.pop("annotations", {})
    made = facts.pod(name, on=on, gpus=gpus, owner=owner, **more)
    wants = {"nvidia.com/gpu": gpus} if gpus else {}
    container = ContainerRequest(name="main", cpu_milli=cpu, memory_bytes=memory_gib * 2**30, gpus=wants)
    return replace(made, data=replace(made.data, containers=(container,), annotations=annotations))


def cluster(*parts) -> list[Fact]:
    """Facts and lists of facts as one list."""
    return [fact for part in parts for fact in (part if isinstance(part, list) else [part])]


def first_fit(instance, *, time_limit_seconds):
    """The real engine, stopped at its first answer: no solver library is loaded."""
    del time_limit_seconds
    return solve(instance, time_limit_seconds=0, objective="cost", clock=time.monotonic)
