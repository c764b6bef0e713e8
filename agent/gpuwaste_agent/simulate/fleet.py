"""The kinds of nodes the simulated cluster is made of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NODE_KINDS", "GpuKind", "NodeKind"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuKind:
    """One or more GPUs set up alike.

    Attributes:
        count: How many of them.
        layout: MIG instances as (profile, start); None is MIG off.
        strategy: `none`, `time-slicing` or `mps`.
        replicas: Slices of each parent.
        renamed: Shared slices are advertised as `nvidia.com/gpu.shared`.
    """

    count: int
    layout: tuple[tuple[str, int], ...] | None = None
    strategy: str = "none"
    replicas: int = 1
    renamed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKind:
    """A machine: its size, where it stands, and its GPUs (all of one product).

    `spare` is the part of its slices that nobody takes, whatever the rest of the cluster does.
    """

    name: str
    product: str
    model: str
    instance_type: str
    pool: str
    cpus: int
    memory_gib: int
    gpus: tuple[GpuKind, ...]
    onprem: bool = False
    spare: float = 0.0


_SEVEN_SMALL = tuple(("1g.10gb", start) for start in range(7))
_HALF = (("3g.40gb", 0), ("3g.40gb", 4))
_MIXED = (("3g.40gb", 4), ("2g.20gb", 0), ("1g.10gb", 2), ("1g.10gb", 3))

_BATCH_T4 = NodeKind(
    name="batch-t4",
    product="T4-16GB",
    model="Tesla T4",
    instance_type="g4dn.12xlarge",
    pool="batch-t4",
    cpus=48,
    memory_gib=192,
    gpus=(GpuKind(count=4),),
    spare=0.5,
)

NODE_KINDS = (
    NodeKind(
        name="train-h100",
        product="H100-80GB",
        model="NVIDIA H100 80GB HBM3",
        instance_type="p5.48xlarge",
        pool="train-h100",
        cpus=192,
        memory_gib=2048,
        gpus=(GpuKind(count=8),),
    ),
    NodeKind(
        name="mig-a100",
        product="A100-80GB",
        model="NVIDIA A100-SXM4-80GB",
        instance_type="p4de.24xlarge",
        pool="mig-a100",
        cpus=96,
        memory_gib=1152,
        gpus=(GpuKind(count=5), GpuKind(count=1, layout=_HALF), GpuKind(count=2, layout=_MIXED)),
    ),
    NodeKind(
        name="serve-a10",
        product="A10-24GB",
        model="NVIDIA A10G",
        instance_type="g5.12xlarge",
        pool="serve-a10",
        cpus=48,
        memory_gib=192,
        gpus=(GpuKind(count=4, strategy="time-slicing", replicas=4, renamed=True),),
    ),
    _BATCH_T4,
    NodeKind(
        name="serve-l4",
        product="L4-24GB",
        model="NVIDIA L4",
        instance_type="g6.12xlarge",
        pool="serve-l4",
        cpus=48,
        memory_gib=192,
        gpus=(GpuKind(count=4, strategy="time-slicing", replicas=2),),
    ),
    NodeKind(
        name="mig-h100",
        product="H100-80GB",
        model="NVIDIA H100 80GB HBM3",
        instance_type="onprem-h100x4",
        pool="mig-h100",
        cpus=96,
        memory_gib=1024,
        onprem=True,
        gpus=(GpuKind(count=1, layout=_SEVEN_SMALL), GpuKind(count=2, layout=_MIXED), GpuKind(count=1)),
    ),
    NodeKind(
        name="render-l40s",
        product="L40S-48GB",
        model="NVIDIA L40S",
        instance_type="g6e.12xlarge",
        pool="render-l40s",
        cpus=48,
        memory_gib=384,
        gpus=(GpuKind(count=4),),
    ),
    _BATCH_T4,
    NodeKind(
        name="serve-a10-whole",
        product="A10-24GB",
        model="NVIDIA A10G",
        instance_type="g5.12xlarge",
        pool="serve-a10-whole",
        cpus=48,
        memory_gib=192,
        gpus=(GpuKind(count=4),),
    ),
    NodeKind(
        name="mig-a30",
        product="A30-24GB",
        model="NVIDIA A30",
        instance_type="onprem-a30x2",
        pool="mig-a30",
        cpus=64,
        memory_gib=256,
        onprem=True,
        gpus=(GpuKind(count=1, layout=(("2g.12gb", 0), ("1g.6gb", 2), ("1g.6gb", 3))), GpuKind(count=1)),
    ),
    NodeKind(
        name="share-h100",
        product="H100-80GB",
        model="NVIDIA H100 80GB HBM3",
        instance_type="onprem-h100x2",
        pool="share-h100",
        cpus=64,
        memory_gib=512,
        onprem=True,
        gpus=(GpuKind(count=2, strategy="time-slicing", replicas=4, renamed=True),),
    ),
    NodeKind(
        name="dev-l4",
        product="L4-24GB",
        model="NVIDIA L4",
        instance_type="g6.xlarge",
        pool="dev-l4",
        cpus=4,
        memory_gib=16,
        gpus=(GpuKind(count=1),),
    ),
)
