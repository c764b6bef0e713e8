"""One simulated day, told by agents and by the exporters that a Prometheus would have scraped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
from tests.cluster.prometheus import blocks_from
from tests.sim.exporters import ExporterStyle, dcgm_lines, kube_state_lines, openmetrics

from gpuwaste.cluster.records import RecordRules, namespace_record, node_record, owner_record, pod_record
from gpuwaste.ingest.decode import decode_batch
from gpuwaste.ledger.gpus import gpu_facts
from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.schema import LEDGER_SCHEMA
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import hour_file, update_hour
from gpuwaste.model.facts import merge_facts
from gpuwaste.model.units import HOUR
from gpuwaste.pricing.facts import price_facts
from gpuwaste.settings.teams import TeamRule, TeamRules
from gpuwaste_agent.journal import Journal
from gpuwaste_agent.simulate.command import simulate
from gpuwaste_agent.wire.usage_pb2 import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from gpuwaste.cluster.api import Json
    from gpuwaste.model.facts import Fact
    from gpuwaste_agent.simulate.build import Cluster

__all__ = ["CLUSTER", "RULES", "Day", "facts_of", "ledger_of", "make_day"]

CLUSTER = "simulated"
RULES = HourRules(teams=TeamRules(rules=(TeamRule(source="namespaceLabel", key="team"),)))
_RECORDS = {"Pod": pod_record, "Node": node_record, "Namespace": namespace_record}


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The day.

    Attributes:
        start: midnight.
        end: the next.
        cluster: what was made up.
        objects: of Kubernetes, as they are at its end.
        facts: what the operator reads off them.
        journals: of the agents.
        blocks: of a Prometheus store.
        style: of the exporters in it.
    """

    start: datetime
    end: datetime
    cluster: Cluster
    objects: list[Json]
    facts: list[Fact]
    journals: Path
    blocks: Path
    style: ExporterStyle

    def agents_windows(self) -> pa.Table:
        """Everything that the agents recorded."""
        tables = []
        for node in self.cluster.scenario.nodes:
            journal = Journal(self.journals / node.name)
            after, more = 0, True
            while more:
                page = journal.read(after, 50_000, 64 << 20)
                head = Batch(journal_id=journal.journal_id, node=node.name, node_uid=node.uid, cluster=CLUSTER)
                head.first_seq, head.next_seq = page.first_seq, page.next_seq
                tables.append(decode_batch(head.SerializeToString() + page.payload, where=node.name).windows)
                after, more = page.next_seq - 1, page.more
            journal.close()
        return pa.concat_tables(tables)


def make_day(
    folder: Path,
    *,
    nodes: int,
    seed: int,
    style: ExporterStyle,
    end: datetime | None = None,
    changed: Callable[[list[Json]], list[Json]] = lambda objects: objects,
    kube_state: bool = True,
) -> Day:
    """Make up a day, and record it twice.

    Args:
        folder: for its files.
        nodes: how many.
        seed: of its load.
        style: of the exporters.
        end: of the day, by default the last midnight.
        changed: gives the objects other UIDs, such as those of a real API server, or adds to them.
        kube_state: whether kube-state-metrics is scraped.
    """
    end = end or datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start = end - timedelta(days=1)
    begin, until = int(start.timestamp()), int(end.timestamp())
    journals = folder / "journals"
    cluster = simulate(
        nodes=nodes,
        start_unix_s=begin,
        until_unix_s=until,
        interval_s=60,
        window_s=60,
        seed=seed,
        directory=journals,
        progress=lambda *_: None,
    )
    objects = changed([json.loads(line) for line in (journals / "objects.jsonl").read_text().splitlines()])
    blocks = folder / "blocks"
    lines = [dcgm_lines(cluster, until_s=until - begin, interval_s=60, style=style)]
    if kube_state:
        lines.append(kube_state_lines(objects, start_unix_s=begin, until_unix_s=until, interval_s=60))
    blocks_from(openmetrics(*lines), blocks)
    return Day(
        start=start,
        end=end,
        cluster=cluster,
        objects=objects,
        facts=facts_of(objects),
        journals=journals,
        blocks=blocks,
        style=style,
    )


def facts_of(objects: Iterable[Json]) -> list[Fact]:
    """Facts as the operator makes them of objects."""
    rules = RecordRules()
    records = [_RECORDS.get(body["kind"], owner_record)(body, rules) for body in objects]
    return merge_facts([fact for record in records if (fact := record.fact()) is not None])


def ledger_of(folder: Path, windows: pa.Table, facts: list[Fact]) -> pa.Table:
    """Store windows and facts, and compute the ledger as `gpuwaste replay` does."""
    store = open_store(str(folder))
    inputs = InputStore.open(store, CLUSTER)
    tables = []
    for hour in sorted(inputs.append_windows(windows)):
        mine = [fact for fact in facts if fact.overlaps(hour, hour + HOUR) or fact.kind in ("owner", "namespace")]
        inputs.write_facts(hour, [*mine, *price_facts([*mine, *gpu_facts(inputs.node_facts(hour))], own=None)])
        update_hour(inputs, store, hour, RULES)
        tables.append(store.read_table(hour_file(CLUSTER, hour)).replace_schema_metadata(LEDGER_SCHEMA.metadata))
    return pa.concat_tables(tables)
