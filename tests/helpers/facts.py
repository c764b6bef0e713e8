"""Builders of facts."""

from datetime import UTC, datetime, timedelta

from gpuwaste.model.facts import ContainerRequest, Fact, GpuData, NodeData, OwnerData, OwnerRef, PodData, PriceData

HOUR = datetime(2026, 11, 2, 9, tzinfo=UTC)
BEFORE = HOUR - timedelta(days=1)


def node(name="node-a", *, start=BEFORE, end=None, product="NVIDIA-H100-80GB-HBM3", gpus=1, **more):
    labels = {"nvidia.com/gpu.product": product, **more.pop("labels", {})}
    data = NodeData(name=name, labels=labels, gpus={"nvidia.com/gpu": gpus}, provider_id=f"test:///{name}", **more)
    return Fact(kind="node", uid=f"uid-{name}", valid_from=start, valid_to=end, data=data)


def gpu(uuid, *, on="node-a", product="H100-80GB", mig=(), replicas=1):
    data = GpuData(
        node=on,
        node_uid=f"uid-{on}",
        product=product,
        model=product,
        memory_bytes=80 * 2**30,
        mig_enabled=bool(mig),
        mig_instances=tuple(mig),
        replicas=replicas,
    )
    return Fact(kind="gpu", uid=uuid, valid_from=BEFORE, valid_to=None, data=data)


def pod(name, *, on="node-a", namespace="team-a", start=BEFORE, end=None, gpus=1, owner=None, uid=None, **more):
    data = PodData(
        namespace=namespace,
        name=name,
        node=on,
        labels=more.get("labels", {}),
        annotations=more.get("annotations", {}),
        owner=owner,
        containers=more.get("containers", (container(gpus=gpus),)),
    )
    return Fact(kind="pod", uid=uid or f"uid-{name}", valid_from=start, valid_to=end, data=data)


def container(name="main", *, gpus=0, init=False):
    asked = {"nvidia.com/gpu": gpus} if gpus else {}
    return ContainerRequest(name=name, cpu_milli=1000, memory_bytes=2**30, gpus=asked, init=init)


def owned_by(kind, name):
    return OwnerRef(api_version="apps/v1", kind=kind, name=name, uid=f"uid-{kind}-{name}")


def owner(kind, name, *, namespace="team-a", above=None):
    data = OwnerData(api_version="apps/v1", kind=kind, namespace=namespace, name=name, owner=above)
    return Fact(kind="owner", uid=f"uid-{kind}-{name}", valid_from=BEFORE, valid_to=None, data=data)


def price(amount="3.20", *, on="node-a", product="H100-80GB", currency="USD"):
    data = PriceData(
        node_uid=f"uid-{on}",
        product=product,
        currency=currency,
        source="PriceList",
        date="2026-11-01",
        list_unit_cost=amount,
        contracted_unit_cost=amount,
        billed_unit_cost=amount,
        effective_unit_cost=amount,
    )
    return Fact(kind="price", uid=f"uid-{on}/{product}", valid_from=BEFORE, valid_to=None, data=data)
