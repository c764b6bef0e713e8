"""What to do about the waste of one workload, from sums over a window of time.

Sums know no simultaneity: whether two workloads fit together moment by moment is for the packing of series to
say. What is advised here is therefore a direction with its saving, at most of medium confidence where pods would
share a GPU, and nothing at all before a day of data.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Final

from gpuwaste.api.common import Advice, Confidence, Savings
from gpuwaste.model.gpu_products import PRODUCTS
from gpuwaste.model.units import HOURS_PER_MONTH
from gpuwaste.waste.workloads import WorkloadAdvice

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuwaste.model.gpu_products import GpuProduct, MigProfile

__all__ = ["ADVICE_NEEDS", "WorkloadFigures", "advice_due", "advise"]

ADVICE_NEEDS: Final = timedelta(hours=24)
"""No advice before so much time was seen: a shorter stretch may miss the part of the day that matters."""

_WEEK_HOURS = 168
_IDLE = Decimal("0.999")
_MEASURED_ENOUGH, _MEASURED_WELL = Decimal("0.5"), Decimal("0.95")
_SMALL_WASTE = Decimal("0.2")
_SHARED_LOAD = Decimal("0.5")
"""Duty that holders of one GPU may add up to: above it, of measured pairs, one in nine or more lost a tenth."""
_MEMORY_LOAD = Decimal("0.9")
_MEMORY_CONTEXT_BYTES = 600 * 2**20
"""What a further CUDA context may take of a GPU's memory."""
_HEADROOM = 2
"""Capacity kept over mean use where replicas are taken away or GPUs made smaller: peaks are not in the sums."""
_MOST_SHARERS = 4
_HEADLINE_LENGTH = 40
_SCALABLE = frozenset({"Deployment", "InferenceService", "LeaderWorkerSet", "RayService", "ReplicaSet", "StatefulSet"})
_PLACES = Decimal("0.000001")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFigures:
    """One workload over one window of time; times in nanoseconds of GPU, None where unmeasured.

    Attributes:
        kind: of the top owner, such as Deployment.
        name: of the top owner.
        first_window: start of the first usage window ever seen of it.
        data_until: end of the last one.
        held_ns: time held.
        duty_ns: time with a kernel resident.
        effective_ns: time the SMs worked.
        idle_ns: net idle.
        starting_ns: net time from allocation to first activity, as far as its limit goes.
        underused_ns: net underused.
        unmeasured_ns: net unmeasured.
        gpus: GPUs held now; parts of shared ones count as parts.
        pods: pods that hold them now.
        exclusive: it shares no GPU, by replicas or MIG.
        product: GPU product, as in the product table; empty where it holds several.
        peak_memory_bytes: highest memory seen on any one GPU.
        media_ns: time of encoder, decoder and copy engines; None unless all were measured all the time.
        suspected_stall: SMs high while tensor cores, DRAM, links and power stay near zero.
        price: of one GPU-hour.
        currency: of the price.
        whole_on_demand_gpus: GPUs on on-demand or spot nodes that hold no other workload.
    """

    kind: str
    name: str
    first_window: datetime
    data_until: datetime
    held_ns: int
    duty_ns: int | None
    effective_ns: int | None
    idle_ns: int
    starting_ns: int
    underused_ns: int
    unmeasured_ns: int
    gpus: Decimal
    pods: int
    exclusive: bool = True
    product: str = ""
    peak_memory_bytes: int | None = None
    media_ns: int | None = None
    suspected_stall: bool = False
    price: Decimal | None = None
    currency: str | None = None
    whole_on_demand_gpus: int = 0

    @property
    def hours(self) -> Decimal:
        """Hours from the first usage window to the last."""
        return Decimal(int((self.data_until - self.first_window).total_seconds())) / 3600

    def part(self, ns: int | None) -> Decimal | None:
        """A time as a part of the time held."""
        return None if ns is None or not self.held_ns else Decimal(ns) / self.held_ns

    @property
    def measured(self) -> Decimal:
        """The part of the held time whose activity is known."""
        return Decimal(1) - (self.part(self.unmeasured_ns) or Decimal(0))


def advice_due(first_window: datetime) -> datetime:
    """When a workload first seen at `first_window` gets its first advice."""
    return first_window + ADVICE_NEEDS


def advise(figures: WorkloadFigures) -> WorkloadAdvice:
    """What to do, dearest first, and the first of it in at most 40 characters.

    Dearest is by cash now, then by GPU time freed; the two are never added. The advices are alternatives: each
    saving is of following that one alone. Of a workload that holds nothing now nothing can be freed.
    """
    due = advice_due(figures.first_window)
    if figures.data_until < due:
        return WorkloadAdvice(headline=f"Collecting until {due.astimezone(UTC):%m-%d %H:%M} UTC")
    if not figures.held_ns:
        return WorkloadAdvice(headline="Holds no GPU")
    if not figures.pods:
        return WorkloadAdvice(headline="Holds no GPU now")
    found = [advice for rule in _RULES if (advice := rule(figures)) is not None]
    if not found:
        return WorkloadAdvice(headline="No advice for this waste" if _wasteful(figures) else "Nothing to do")
    found.sort(key=lambda one: _worth(one[0]), reverse=True)
    return WorkloadAdvice(headline=found[0][1][:_HEADLINE_LENGTH], advice=tuple(advice for advice, _ in found))


_Found = tuple[Advice, str]


def _worth(advice: Advice) -> tuple[bool, Decimal, Decimal]:
    """Broken measurement comes first: everything else rests on it."""
    savings = advice.savings or Savings()
    return (
        advice.type == "FixMeasurement",
        savings.cash_now or Decimal(0),
        savings.capacity_freed_gpu_hours or Decimal(0),
    )


def _fix_measurement(figures: WorkloadFigures) -> _Found | None:
    who, idle = f"{figures.kind}/{figures.name}", _is_idle(figures)
    if figures.measured < _MEASURED_ENOUGH or (idle and figures.measured < _MEASURED_WELL):
        message = (
            f"Only {_percent(figures.measured)} of the time held by {who} was measured; "
            "`gpuwaste-agent doctor` on its nodes says what is in the way."
        )
        return Advice(type="FixMeasurement", message=message, confidence=Confidence.HIGH), "Fix measurement"
    if idle and figures.media_ns is None:
        message = (
            f"No activity of {who} was seen, but its encoder and decoder are not measured: "
            "measure them before scaling it to zero."
        )
        return Advice(type="FixMeasurement", message=message, confidence=Confidence.HIGH), "Measure encode and decode"
    return None


def _is_idle(figures: WorkloadFigures) -> bool:
    """Nothing ran in all that was measured: time before a first activity that never came is idle like the rest."""
    measured_ns = figures.held_ns - figures.unmeasured_ns
    ran = figures.part(figures.media_ns) or Decimal(0)
    unused_ns = figures.idle_ns + figures.starting_ns
    return measured_ns > 0 and Decimal(unused_ns) / measured_ns >= _IDLE and ran <= 1 - _IDLE


def _scale_to_zero(figures: WorkloadFigures) -> _Found | None:
    if not _is_idle(figures) or figures.media_ns is None or figures.measured < _MEASURED_WELL:
        return None
    how = "scale it to zero" if figures.kind in _SCALABLE else "end it"
    message = (
        f"{figures.kind}/{figures.name} held {_text(figures.gpus)} GPUs for {round(figures.hours)} h and used none of "
        f"their engines: {how}, or start it on demand."
    )
    advice = Advice(
        type="ScaleToZero",
        message=message,
        confidence=_confidence(figures),
        savings=_savings(figures, figures.gpus),
        pods=figures.pods,
    )
    return advice, f"Scale to zero, frees {_text(figures.gpus)} GPU"


def _stall(figures: WorkloadFigures) -> _Found | None:
    if not figures.suspected_stall:
        return None
    message = (
        f"The SMs of {figures.kind}/{figures.name} are busy while tensor cores, memory, links and power are near "
        "idle: it may spin or wait. Look at it before anything is changed."
    )
    return Advice(type="InvestigateStall", message=message, confidence=Confidence.LOW), "Investigate a possible stall"


def _rightsize(figures: WorkloadFigures) -> _Found | None:
    duty = figures.part(figures.duty_ns)
    if figures.kind not in _SCALABLE or figures.pods <= 1 or duty is None or not _usable(figures):
        return None
    needed = max(1, int((duty * figures.pods * _HEADROOM).to_integral_value(ROUND_CEILING)))
    if needed >= figures.pods:
        return None
    freed = figures.gpus * (figures.pods - needed) / figures.pods
    message = (
        f"{figures.pods} replicas of {figures.kind}/{figures.name} are busy {_percent(duty)} of the time on average; "
        f"{needed} would be busy at most half of it. Check its peak hours first."
    )
    advice = Advice(
        type="RightsizeReplicas",
        message=message,
        confidence=Confidence.LOW,
        savings=_savings(figures, freed),
        pods=figures.pods - needed,
    )
    return advice, f"{figures.pods} -> {needed} replicas, frees {_text(freed)} GPU"


def _share(figures: WorkloadFigures) -> _Found | None:
    duty, product = figures.part(figures.duty_ns), PRODUCTS.get(figures.product)
    if not figures.exclusive or duty is None or not _usable(figures) or not _one_gpu_a_pod(figures):
        return None
    sharers = _MOST_SHARERS if not duty else min(int(_SHARED_LOAD / duty), _MOST_SHARERS)
    known = product is not None and figures.peak_memory_bytes is not None
    if product is not None and figures.peak_memory_bytes is not None:
        each = figures.peak_memory_bytes + _MEMORY_CONTEXT_BYTES
        sharers = min(sharers, int(_MEMORY_LOAD * product.memory_mib * 2**20 / each))
    if sharers < 2:  # noqa: PLR2004 (one holder shares with nobody)
        return None
    freed = figures.gpus * (sharers - 1) / sharers
    memory = "" if known else " Its peak memory is not known: measure that first, for memory is a hard limit."
    message = (
        f"{figures.kind}/{figures.name} is busy {_percent(duty)} of the time: {sharers} like it fit on one GPU by "
        f"time-slicing or MPS.{memory}"
    )
    advice = Advice(
        type="ShareGPU",
        message=message,
        confidence=Confidence.MEDIUM if known and figures.measured >= _MEASURED_WELL else Confidence.LOW,
        savings=_savings(figures, freed, whole_nodes=False),
        pods=figures.pods,
    )
    return advice, f"Share GPU {sharers} ways, frees {_text(freed)} GPU"


def _smaller(figures: WorkloadFigures) -> _Found | None:
    effective, product = figures.part(figures.effective_ns), PRODUCTS.get(figures.product)
    if effective is None or product is None or figures.peak_memory_bytes is None:
        return None
    if not figures.exclusive or not _usable(figures) or not _one_gpu_a_pod(figures):
        return None
    profile = _profile(product, effective, figures.peak_memory_bytes) if product.mig_capable else None
    if profile is not None:
        freed = (figures.gpus * (1 - Decimal(profile.weight.numerator) / profile.weight.denominator)).quantize(_PLACES)
        message = (
            f"{figures.kind}/{figures.name} uses {_percent(effective)} of the SMs and "
            f"{_gib(figures.peak_memory_bytes)} GiB at its peak: {profile.name} of {product.name} holds both."
        )
        advice = Advice(
            type="UseMIGProfile",
            message=message,
            confidence=_at_most(_confidence(figures), Confidence.MEDIUM),
            savings=_savings(figures, freed, whole_nodes=False),
            pods=figures.pods,
        )
        return advice, f"Use MIG {profile.name}"
    return _smaller_product(figures, effective, product)


def _smaller_product(figures: WorkloadFigures, effective: Decimal, product: GpuProduct) -> _Found | None:
    """The smallest product of the same or a newer generation's SM count that holds load and memory, if any."""
    wanted_sms = effective * _HEADROOM * product.sm_count
    wanted_bytes = (figures.peak_memory_bytes or 0) + _MEMORY_CONTEXT_BYTES
    smaller = [
        one
        for one in PRODUCTS.values()
        if one.sm_count >= wanted_sms
        and one.memory_mib * 2**20 >= wanted_bytes
        and one.sm_count * 2 <= product.sm_count
        and float(one.compute_capability) >= float(product.compute_capability)
    ]
    if not smaller:
        return None
    best = min(smaller, key=lambda one: (one.sm_count, one.memory_mib, one.name))
    message = (
        f"{figures.kind}/{figures.name} uses {_percent(effective)} of the SMs of {product.name} and "
        f"{_gib(figures.peak_memory_bytes or 0)} GiB at its peak: a {best.name} would hold both. Try its speed there."
    )
    advice = Advice(
        type="SmallerGPU",
        message=message,
        confidence=Confidence.LOW,
        savings=_savings(figures, figures.gpus, whole_nodes=False),
        pods=figures.pods,
    )
    return advice, f"Try a smaller GPU: {best.name}"


def _profile(product: GpuProduct, effective: Decimal, peak_bytes: int) -> MigProfile | None:
    """The smallest MIG profile, short of the whole GPU, with twice the mean load and all of the memory."""
    total_bytes = product.memory_mib * 2**20
    fitting = [
        one
        for one in product.profiles
        if not one.media
        and one.compute_slices < product.compute_slices
        and one.compute_slices >= effective * _HEADROOM * product.compute_slices
        and total_bytes * one.memory_units // one.axis_units >= peak_bytes + _MEMORY_CONTEXT_BYTES
    ]
    return min(fitting, key=lambda one: (one.weight, one.compute_slices, one.name)) if fitting else None


def _wasteful(figures: WorkloadFigures) -> bool:
    waste = figures.part(figures.idle_ns + figures.underused_ns)
    return waste is not None and waste >= _SMALL_WASTE


def _usable(figures: WorkloadFigures) -> bool:
    """Enough is measured, there is waste worth an advice, and it is not simply idle."""
    return figures.measured >= _MEASURED_ENOUGH and _wasteful(figures) and not _is_idle(figures)


def _one_gpu_a_pod(figures: WorkloadFigures) -> bool:
    """Pods with several GPUs span them: they neither share one nor fit a slice of one."""
    return figures.pods > 0 and figures.gpus <= figures.pods


def _confidence(figures: WorkloadFigures) -> Confidence:
    if figures.measured < _MEASURED_WELL:
        return Confidence.LOW
    return Confidence.HIGH if figures.hours >= _WEEK_HOURS else Confidence.MEDIUM


def _at_most(confidence: Confidence, limit: Confidence) -> Confidence:
    order = (Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH)
    return min(confidence, limit, key=order.index)


def _savings(figures: WorkloadFigures, freed: Decimal, *, whole_nodes: bool = True) -> Savings:
    """Cash now for GPUs on whole on-demand nodes that would stop; GPU time for others for the rest."""
    stops = (
        Decimal(figures.whole_on_demand_gpus) if whole_nodes and freed >= figures.whole_on_demand_gpus else Decimal(0)
    )
    rest = freed - stops
    cash = None
    if stops and figures.price is not None:
        cash = (stops * figures.price * HOURS_PER_MONTH).quantize(_PLACES)
    return Savings(
        cash_now=cash,
        capacity_freed_gpu_hours=(rest * HOURS_PER_MONTH).quantize(_PLACES) if rest else None,
        currency=figures.currency if cash is not None else None,
    )


def _text(amount: Decimal) -> str:
    return f"{amount.quantize(Decimal('0.1')).normalize():f}"


def _percent(part: Decimal) -> str:
    return f"{part * 100:.0f} %"


def _gib(amount_bytes: int) -> str:
    return f"{amount_bytes / 2**30:.1f}"


_RULES: tuple[Callable[[WorkloadFigures], _Found | None], ...] = (
    _fix_measurement,
    _scale_to_zero,
    _stall,
    _rightsize,
    _share,
    _smaller,
)
