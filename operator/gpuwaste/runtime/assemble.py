"""Put an operator together from its settings; what differs between a cluster and the demo is passed in."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError

from gpuwaste import __version__
from gpuwaste.cluster.records import ANNOTATION_PREFIXES, RecordRules
from gpuwaste.cluster.state import ClusterState
from gpuwaste.ingest.prometheus.client import open_store as open_prometheus
from gpuwaste.ingest.prometheus.source import PrometheusSource
from gpuwaste.ingest.pull import AgentClient
from gpuwaste.ledger.hour import HourRules
from gpuwaste.ledger.inputs import InputStore, team_rules_file
from gpuwaste.ledger.store import open_store
from gpuwaste.model.units import hour_start
from gpuwaste.pricing.bills import Exchange
from gpuwaste.pricing.facts import NodeWeights, PriceSources
from gpuwaste.pricing.pricelist import load_price_list
from gpuwaste.runtime.backfill import Backfill
from gpuwaste.runtime.bills import Bills
from gpuwaste.runtime.books import Books
from gpuwaste.runtime.chargeback import Chargeback, first_open
from gpuwaste.runtime.intake import Intake
from gpuwaste.runtime.loop import Operator, cluster_name
from gpuwaste.runtime.metrics import OperatorMetrics
from gpuwaste.runtime.planning import Planner
from gpuwaste.runtime.puller import Puller
from gpuwaste.runtime.receiver import Receiver
from gpuwaste.runtime.upkeep import Upkeep
from gpuwaste.runtime.writer import ObjectWriter
from gpuwaste.settings.errors import SettingsError
from gpuwaste.settings.problems import problems
from gpuwaste.settings.teams import TeamHistory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime
    from random import Random

    from gpuwaste.cluster.api import ClusterApi
    from gpuwaste.ledger.store import Store
    from gpuwaste.settings.operator import OperatorSettings

__all__ = ["assemble"]


@asynccontextmanager
async def assemble(
    settings: OperatorSettings, api: ClusterApi, *, now: Callable[[], datetime], random: Random
) -> AsyncIterator[Operator]:
    """An operator with its stores open and its client ready.

    Args:
        settings: checked settings.
        api: the API server.
        now: the clock.
        random: for jitter.

    Raises:
        InputError: the price list or a stored file breaks a rule.
        UnreachableError: the API server or the store did not answer.
    """
    prices = load_price_list(settings.price_list) if settings.price_list else None
    pricing = settings.pricing
    store = open_store(settings.store)
    name = await cluster_name(api, settings)
    inputs = await asyncio.to_thread(InputStore.open, store, name)
    rules = HourRules(
        teams=await _team_rules(settings, store, name, api, now()),
        starting_limit_seconds=settings.starting_limit_seconds,
        pool_label=settings.pool_label,
    )
    state = ClusterState(api=api, now=now, random=random, rules=_record_rules(settings))
    exchange = Exchange(currency=pricing.currency, rates=pricing.exchange_rates)
    metrics = OperatorMetrics()
    books = Books(
        inputs=inputs,
        store=store,
        rules=rules,
        prices=PriceSources(
            own=prices,
            weights=NodeWeights(
                gpu=pricing.node_price_weights.gpu,
                cpu=pricing.node_price_weights.cpu,
                memory=pricing.node_price_weights.memory,
            ),
            pool_label=settings.pool_label,
            exchange=exchange,
        ),
        bills=Bills(paths=pricing.bills, exchange=exchange),
        keep_inputs=timedelta(days=settings.retention.inputs_days),
    )
    chargeback = Chargeback(
        api=api,
        ledger=store,
        cluster=name,
        generator_version=__version__,
        look_period_seconds=settings.chargeback.look_period_seconds,
        metrics=metrics,
        now=now,
        changes_for=books.keep_inputs,
    )
    kept = settings.retention.ledger_days
    upkeep = Upkeep(
        books=books,
        chargeback=chargeback,
        metrics=metrics,
        compact_after=timedelta(days=settings.retention.compact_after_days),
        keep_ledger=None if kept is None else timedelta(days=kept),
    )
    async with AgentClient(tls=settings.agents.tls, concurrency=settings.agents.concurrency) as client:
        yield Operator(
            settings=settings,
            api=api,
            state=state,
            backfill=_backfill(settings, state, inputs, now),
            receiver=_receiver(settings, inputs, metrics),
            puller=Puller(
                source=client,
                inputs=inputs,
                batch_records=settings.agents.batch_records,
                concurrency=settings.agents.concurrency,
            ),
            books=books,
            writer=ObjectWriter(api=api, writes_per_second=settings.writes_per_second),
            planner=Planner(settings=settings.plan, pool_label=settings.pool_label),
            chargeback=chargeback,
            upkeep=upkeep,
            metrics=metrics,
            now=now,
        )


def _record_rules(settings: OperatorSettings) -> RecordRules:
    """Annotations are kept only where somebody reads them; the team rules may read some of their own."""
    return RecordRules(annotation_prefixes=(*ANNOTATION_PREFIXES, *sorted(settings.team_rules.annotation_keys)))


def _backfill(
    settings: OperatorSettings, state: ClusterState, inputs: InputStore, now: Callable[[], datetime]
) -> Backfill | None:
    if settings.prometheus is None or not settings.backfill.days:
        return None
    store = open_prometheus(settings.prometheus, whole=True)
    return Backfill(
        source=PrometheusSource(store=store, cluster=inputs.cluster),
        inputs=inputs,
        snapshot=state.snapshot,
        days=settings.backfill.days,
        now=now,
    )


def _receiver(settings: OperatorSettings, inputs: InputStore, metrics: OperatorMetrics) -> Receiver | None:
    if settings.agents.tls is None or not settings.receive_port:
        return None
    return Receiver(intake=Intake(inputs=inputs), tls=settings.agents.tls, port=settings.receive_port, metrics=metrics)


async def _team_rules(
    settings: OperatorSettings, store: Store, cluster: str, api: ClusterApi, now: datetime
) -> TeamHistory:
    """The rules of the settings for open periods, and for closed ones those that they were written by.

    They are inputs like all others, and stored: without them a replay would name other teams.
    """
    wanted, name = settings.team_rules, team_rules_file(cluster)
    stored = await asyncio.to_thread(store.read_or_none, name)
    try:
        history = TeamHistory(rules=wanted.rules) if stored is None else TeamHistory.model_validate_json(stored)
    except ValidationError as error:
        raise SettingsError(problems(error, TeamHistory), where=f"{store.root}/{name}") from None
    if history.rules != wanted.rules:
        history = history.changed(wanted, since=hour_start(await first_open(api, now=now)))
    text = history.to_json().encode()
    if stored != text:
        await asyncio.to_thread(store.write, name, text)
    return history
