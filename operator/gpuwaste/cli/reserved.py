"""`gpuwaste reserved`: what is set aside against what is held and used."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from gpuwaste.cli.output import Column, echo_table, output_option

if TYPE_CHECKING:
    from gpuwaste.waste.reserved import ReservedBy

__all__ = ["reserved"]


@click.command()
@click.option("--inputs", required=True, metavar="URL", help="Stored inputs: the folder `inputs`, or its parent.")
@click.option("--ledger", metavar="URL", help="The ledger.  [default: beside the inputs]")
@click.option("--cluster", help="With inputs of several clusters: which.")
@click.option(
    "--by",
    type=click.Choice(("namespace", "team", "pool")),
    default="namespace",
    show_default=True,
    help="What a row stands for.",
)
@output_option
def reserved(*, inputs: str, ledger: str | None, cluster: str | None, by: ReservedBy, output: str) -> None:
    """Set requests, quotas and purchases beside what is held and used, in the newest hour of the ledger.

    REQUESTED and QUOTA count device slices, as Kubernetes does; BOUGHT, HELD and EFFECTIVE count GPUs, with parts of
    shared ones. QUEUE is the nominal quota of the Kueue queues that a namespace may use, and others may as well.
    """
    from gpuwaste.cli.replay import rules_of
    from gpuwaste.cli.stores import clusters_of, open_inputs, open_ledger
    from gpuwaste.ledger.gpus import gpu_facts
    from gpuwaste.ledger.inputs import InputStore
    from gpuwaste.ledger.write import read_ledger
    from gpuwaste.model.errors import InputError
    from gpuwaste.model.facts import merge_facts
    from gpuwaste.model.units import HOUR, from_unix_ns, to_unix_ns
    from gpuwaste.waste.reserved import reserved_against_used

    store, books = open_inputs(inputs), open_ledger(ledger or inputs)
    clusters = clusters_of(store, "inputs", only=cluster)
    if len(clusters) > 1:
        raise InputError(f"holds the clusters {', '.join(clusters)}", where=inputs, fix="name one with --cluster")
    ((name, hours),) = clusters.items()
    written = set(clusters_of(books, "ledger", only=None).get(name, ())) & set(hours)
    if not written:
        raise InputError(f"no hour of cluster {name} is in the inputs and in the ledger", where=ledger or inputs)
    hour, stored = max(written), InputStore(store, name)
    facts = merge_facts(stored.read_facts(hour), gpu_facts(stored.node_facts(hour)))
    rows = read_ledger(books, start=hour, end=hour + HOUR, clusters=[name])
    at = from_unix_ns(to_unix_ns(hour + HOUR) - 1_000)
    found = reserved_against_used(facts, rows, by=by, at=at, teams=rules_of(stored, None).teams)
    columns = [
        Column("name", by.upper(), lambda text: text or "(nobody)"),
        Column("requested", "REQUESTED", right=True),
        Column("quota", "QUOTA", unknown="none", right=True),
        Column("queue_quota", "QUEUE", unknown="none", right=True),
        Column("bought", "BOUGHT", right=True),
        Column("held", "HELD", lambda gpus: f"{gpus:.2f}", right=True),
        Column("effective", "EFFECTIVE", lambda gpus: f"{gpus:.2f}", unknown="<unmeasured>", right=True),
        Column("waiting_pods", "WAITING", right=True),
        Column("longest_wait_seconds", "LONGEST WAIT", lambda seconds: f"{seconds // 60} min", unknown="", right=True),
    ]
    echo_table(columns, [asdict(row) for row in found], output)
