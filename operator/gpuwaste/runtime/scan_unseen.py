"""What a scan could not see, why, and how to see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpuwaste.cluster.survey import Survey
    from gpuwaste.ingest.prometheus.source import PrometheusSource, StoreFacts
    from gpuwaste.report.summary import Summary
    from gpuwaste.runtime.scan import ScanLedger

__all__ = ["Unseen", "unseen"]

_NAMES = 3
_CLUSTER_ROLE = (
    "ask for a ClusterRole with get and list on nodes, namespaces, pods and workloads; the built-in `view` lacks nodes"
)
_COUNTERS = "DCGM_FI_PROF_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """One thing that could not be seen.

    Attributes:
        what: in a few words.
        why: the reason.
        fix: how to see it.
    """

    what: str
    why: str
    fix: str

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.what}: {self.why}; {self.fix}"


def unseen(
    ledger: ScanLedger,
    summary: Summary,
    *,
    survey: Survey | None,
    looked: StoreFacts,
    source: PrometheusSource,
    asked_hours: int,
) -> list[Unseen]:
    """Everything, what matters most first."""
    found = [*_of_store(looked, source), *_of_hours(ledger, asked_hours)]
    if survey is not None:
        found += [*_of_cluster(survey), *_of_nodes(survey, ledger)]
    found += _of_metrics(looked)
    found += _of_prices(summary)
    found += [Unseen(what="measurement", why=note.partition(":")[0], fix=_after(note)) for note in source.notes]
    found += [Unseen(what="ledger", why=note, fix="see `gpuwaste ledger verify`") for note in ledger.findings]
    return found


def _after(note: str) -> str:
    return note.partition(": ")[2].strip() or "see docs/prometheus.md"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def _of_store(looked: StoreFacts, source: PrometheusSource) -> Iterator[Unseen]:
    for problem in looked.problems:
        why, _, fix = problem.partition(": ")
        yield Unseen(what="Prometheus", why=why, fix=fix or "set the clocks by NTP")
    for warning in source.store.warnings:
        yield Unseen(what="Prometheus", why=warning, fix="look at the store: answers were not whole")


def _of_hours(ledger: ScanLedger, asked: int) -> Iterator[Unseen]:
    if len(ledger.hours) < asked:
        yield Unseen(
            what="time",
            why=f"only {len(ledger.hours)} of {asked} hours have readings of GPUs",
            fix="scan again later, or give fewer --hours; advice needs a day",
        )


def _of_cluster(survey: Survey) -> Iterator[Unseen]:
    if survey.refused:
        names = [refusal.what for refusal in survey.refused]
        yield Unseen(
            what=f"lists of the cluster ({_listed(names)})",
            why=f"the API server refuses them: {survey.refused[0].why}",
            fix=_CLUSTER_ROLE,
        )
    if survey.rejected:
        yield Unseen(what="objects", why=_listed(survey.rejected), fix="report it: they could not be understood")


def _of_nodes(survey: Survey, ledger: ScanLedger) -> Iterator[Unseen]:
    data = [record.data for record in survey.snapshot.nodes.values() if record.data.name in survey.snapshot.gpu_nodes]
    nvidia = [node.name for node in data if any(name.startswith("nvidia.com/") for name in node.gpus)]
    dark = sorted(set(nvidia) - ledger.nodes)
    if dark:
        yield Unseen(
            what=f"{len(dark)} of {len(nvidia)} GPU nodes",
            why=f"no reading of {_listed(dark)}; what their pods do is unmeasured",
            fix="let dcgm-exporter run there and be scraped (taints? node selectors?)",
        )
    others = sorted({node.name for node in data if node.gpus} - set(nvidia))
    if others:
        yield Unseen(
            what=f"GPUs of other vendors on {len(others)} nodes",
            why=f"dcgm-exporter knows NVIDIA's alone ({_listed(others)})",
            fix="they are held and priced, and unmeasured",
        )


def _of_metrics(looked: StoreFacts) -> Iterator[Unseen]:
    kube = [name for name in looked.missing if name.startswith("kube_")]
    if not looked.has_kube_state:
        yield Unseen(
            what="pods that are gone",
            why="the store has no metric of kube-state-metrics",
            fix="install kube-state-metrics and let it be scraped",
        )
    elif kube:
        yield Unseen(
            what=looked.missing[kube[0]],
            why=f"{_listed(kube)} missing",
            fix="allow these metrics in kube-state-metrics (--metric-allowlist)",
        )
    for name, why in looked.missing.items():
        if not name.startswith("kube_"):
            counters = "uncomment it in dcgm-exporter's metrics file" if name.startswith(_COUNTERS) else "export it"
            yield Unseen(what=why, why=f"{name} is not exported", fix=counters)


def _of_prices(summary: Summary) -> Iterator[Unseen]:
    models = sorted({price.gpu_model or "unknown GPUs" for price in summary.prices if price.unit_cost is None})
    if models:
        yield Unseen(
            what="cost", why=f"no price is known for {_listed(models)}", fix="give a price list with --prices FILE"
        )
