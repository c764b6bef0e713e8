"""`gpuwaste reserved`: what is set aside against what is held and used."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from gpuwaste.cli.output import Column, echo_table, output_option

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from gpuwaste.ledger.store import Store
    from gpuwaste.model.facts import Fact
    from gpuwaste.settings.teams import TeamRules
    from gpuwaste.waste.reserved import ReservedBy

__all__ = ["reserved"]


@click.command()
@click.option("--inputs", metavar="URL", help="Stored inputs: the folder `inputs`, or its parent.")
@click.option("--ledger", metavar="URL", help="The ledger; either is looked for beside the other.")
@click.option("--cluster", help="This cluster alone.")
@click.option(
    "--by",
    type=click.Choice(("namespace", "team", "pool")),
    default="namespace",
    show_default=True,
    help="What a row stands for.",
)
@output_option
def reserved(*, inputs: str | None, ledger: str | None, cluster: str | None, by: ReservedBy, output: str) -> None:
    """Set requests, quotas and purchases beside what is held and used, in the newest hour of the ledger.

    REQUESTED and QUOTA count device slices, as Kubernetes does; BOUGHT, HELD and EFFECTIVE count GPUs, with parts of
    shared ones. QUEUE is the nominal quota of the Kueue queues that a namespace may use, and others may as well;
    MAY BORROW is what those queues may have beyond it, at most, while others of their cohorts leave it unused. Of
    several clusters a team is one row, and a purchase that they share counts in the first of them.
    """
    from gpuwaste.cli.stores import clusters_of, open_inputs, open_ledger
    from gpuwaste.waste.reserved import over_clusters, purchases_once, reserved_against_used

    url = inputs or ledger
    if url is None:
        raise click.UsageError("give --inputs or --ledger")
    store, books = open_inputs(url), open_ledger(ledger or url)
    newest = [_newest(store, books, name, hours) for name, hours in clusters_of(store, "inputs", only=cluster).items()]
    facts = purchases_once({one.cluster: one.facts for one in newest})
    rows = {
        one.cluster: reserved_against_used(facts[one.cluster], one.rows, by=by, at=one.at, teams=one.teams)
        for one in newest
    }
    found = over_clusters(rows, by=by)
    several = len(rows) > 1 and by != "team"
    columns = [
        Column("cluster", "CLUSTER" if several else ""),
        Column("name", by.upper(), lambda text: text or "(nobody)"),
        Column("requested", "REQUESTED", right=True),
        Column("quota", "QUOTA", unknown="none", right=True),
        Column("queue_quota", "QUEUE", unknown="none", right=True),
        Column("queue_borrowable", "MAY BORROW", unknown="none", right=True),
        Column("bought", "BOUGHT", right=True),
        Column("held", "HELD", lambda gpus: f"{gpus:.2f}", right=True),
        Column("effective", "EFFECTIVE", lambda gpus: f"{gpus:.2f}", unknown="<unmeasured>", right=True),
        Column("waiting_pods", "WAITING", right=True),
        Column("longest_wait_seconds", "LONGEST WAIT", lambda seconds: f"{seconds // 60} min", unknown="", right=True),
    ]
    echo_table(columns, [asdict(row) for row in found], output)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Newest:
    """The newest hour of a cluster that is in its inputs and in its ledger."""

    cluster: str
    facts: list[Fact]
    rows: pa.Table
    at: datetime
    teams: TeamRules


def _newest(store: Store, books: Store, name: str, hours: list[datetime]) -> _Newest:
    from gpuwaste.cli.replay import rules_of
    from gpuwaste.cli.stores import clusters_of
    from gpuwaste.ledger.gpus import gpu_facts
    from gpuwaste.ledger.inputs import InputStore
    from gpuwaste.ledger.write import read_ledger
    from gpuwaste.model.errors import InputError
    from gpuwaste.model.facts import merge_facts
    from gpuwaste.model.units import HOUR, from_unix_ns, to_unix_ns

    written = set(clusters_of(books, "ledger", only=None).get(name, ())) & set(hours)
    if not written:
        raise InputError(f"no hour of cluster {name} is in the inputs and in the ledger", where=books.root)
    hour, stored = max(written), InputStore(store, name)
    return _Newest(
        cluster=name,
        facts=merge_facts(stored.read_facts(hour), gpu_facts(stored.node_facts(hour))),
        rows=read_ledger(books, start=hour, end=hour + HOUR, clusters=[name]),
        at=from_unix_ns(to_unix_ns(hour + HOUR) - 1_000),
        teams=rules_of(stored, None).at(hour).teams,
    )
