"""What a FinOps reader asks of split records, in SQL over an exported file."""

from decimal import Decimal

import duckdb
import pyarrow.dataset as pa_dataset
import pytest
from tests.unit.focus.ledgers import free, holder, ledger

from gpuwaste.focus.columns import coded_schema
from gpuwaste.focus.files import open_sink
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.split import split_ledger

ROWS = [
    holder("vision", 0.5),
    holder("speech", 0.25, duty=0.2, effective=0.125),
    free(0.25),
    holder("vision", 1, hour=1),
    holder("search", 1, node="node-2", gpu="GPU-2", price="8"),
]

QUESTIONS = {
    "which resources are shared": (
        """SELECT ResourceId, count(DISTINCT AllocatedResourceId) FROM focus
           WHERE ChargeCategory = 'Usage' AND AllocatedMethodId IS NOT NULL
           GROUP BY ResourceId HAVING count(DISTINCT AllocatedResourceId) > 1""",
        [("uid-node-1", 2)],
    ),
    "what each resource costs": (
        """SELECT ResourceId, sum(EffectiveCost), sum(BilledCost) FROM focus WHERE ChargeCategory = 'Usage'
           GROUP BY ResourceId ORDER BY ResourceId""",
        [("uid-node-1", Decimal(4), Decimal(4)), ("uid-node-2", Decimal(8), Decimal(8))],
    ),
    "what each receiver costs": (
        """SELECT AllocatedResourceName, sum(EffectiveCost) FROM focus
           WHERE ChargeCategory = 'Usage' AND AllocatedResourceId IS NOT NULL
           GROUP BY AllocatedResourceId, AllocatedResourceName ORDER BY 2 DESC""",
        [("search", Decimal(8)), ("vision", Decimal(3)), ("speech", Decimal("0.5"))],
    ),
    "what is left unallocated, by resource": (
        """SELECT ResourceId, sum(EffectiveCost) FROM focus
           WHERE AllocatedMethodId IS NOT NULL AND AllocatedResourceId IS NULL GROUP BY ResourceId""",
        [("uid-node-1", Decimal("0.5"))],
    ),
    "why it is left": (
        "SELECT x_RemainderReason, sum(EffectiveCost) FROM focus WHERE AllocatedResourceId IS NULL GROUP BY ALL",
        [("Unallocated", Decimal("0.5"))],
    ),
    "which part of a resource each receiver had": (
        """SELECT AllocatedResourceName,
               CAST(json_extract_string(AllocatedMethodDetails, '$.Elements[0].AllocatedRatio') AS DECIMAL(13, 12))
           FROM focus WHERE ResourceId = 'uid-node-1' AND ChargePeriodStart = '2026-11-01' ORDER BY 1""",
        [("speech", Decimal("0.25")), ("vision", Decimal("0.5")), (None, Decimal("0.25"))],
    ),
    "which methods were used": (
        "SELECT DISTINCT AllocatedMethodId FROM focus WHERE AllocatedMethodId IS NOT NULL",
        [("gpuwaste-held-v1",)],
    ),
    "what a resource costs that is shared, and with how many": (
        """SELECT ResourceId, ResourceName, ServiceName, count(DISTINCT AllocatedResourceId), sum(EffectiveCost)
           FROM focus WHERE ChargeCategory = 'Usage' AND AllocatedMethodId IS NOT NULL
           GROUP BY ALL HAVING count(DISTINCT AllocatedResourceId) > 1""",
        [("uid-node-1", "node-1", "GPU Nodes", 2, Decimal(4))],
    ),
    "what each receiver costs in a billing period, allocated and billed": (
        """SELECT strftime(BillingPeriodStart, '%Y-%m'), AllocatedResourceId,
               sum(EffectiveCost), sum(BilledCost)
           FROM focus WHERE ChargeCategory = 'Usage' AND AllocatedResourceId IS NOT NULL
             AND ChargePeriodStart >= '2026-11-01' AND ChargePeriodEnd <= '2026-12-01'
           GROUP BY ALL ORDER BY 2""",
        [
            ("2026-11", f"k8s://c1/namespaces/{name}", cost, cost)
            for name, cost in (("search", Decimal(8)), ("speech", Decimal("0.5")), ("vision", Decimal(3)))
        ],
    ),
    "what share of each resource is allocated": (
        """SELECT ResourceId, round(100 * sum(EffectiveCost) FILTER (AllocatedResourceId IS NOT NULL)
               / sum(EffectiveCost), 2)
           FROM focus WHERE AllocatedMethodId IS NOT NULL GROUP BY ResourceId ORDER BY ResourceId""",
        [("uid-node-1", 87.5), ("uid-node-2", 100)],
    ),
    "what a receiver paid for, resource by resource, with the method": (
        """SELECT ResourceId, AllocatedMethodId, sum(EffectiveCost),
               sum(CAST(json_extract_string(AllocatedMethodDetails, '$.Elements[0].UsageQuantity') AS DECIMAL(18, 6)))
           FROM focus WHERE AllocatedResourceName = 'vision' GROUP BY ALL""",
        [("uid-node-1", "gpuwaste-held-v1", Decimal(3), Decimal("1.5"))],
    ),
    "what is used of what is held": (
        """SELECT AllocatedResourceName,
               sum(CAST(json_extract_string(element, '$.x_EffectiveGpuHours') AS DECIMAL(18, 6))),
               sum(CAST(json_extract_string(element, '$.x_HeldGpuHours') AS DECIMAL(18, 6)))
           FROM (SELECT *, json_extract(AllocatedMethodDetails, '$.Elements[0]') AS element FROM focus)
           WHERE AllocatedResourceId IS NOT NULL GROUP BY ALL ORDER BY 1""",
        [
            ("search", None, Decimal(1)),
            ("speech", Decimal("0.125"), Decimal("0.25")),
            ("vision", None, Decimal("1.5")),
        ],
    ),
    "what each tag costs": (
        """SELECT json_extract_string(AllocatedTags, '$."gpuwaste.dev/team"'), sum(EffectiveCost)
           FROM focus WHERE AllocatedTags IS NOT NULL GROUP BY ALL ORDER BY 1""",
        [("search", Decimal(8)), ("speech", Decimal("0.5")), ("vision", Decimal(3))],
    ),
    "whether every charge is whole": (
        """SELECT count(*) FROM (
               SELECT x_OriginChargeId FROM focus GROUP BY x_OriginChargeId
               HAVING sum(ListCost) <> max(CAST(ListUnitPrice AS DECIMAL(18, 12)))
                   * sum(CAST(PricingQuantity AS DECIMAL(20, 16))))""",
        [(0,)],
    ),
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    path = tmp_path_factory.mktemp("focus") / "f.parquet"
    with open_sink(path, coded_schema("1.3")) as sink:
        sink.write(split_ledger(ledger(*ROWS), ExportOptions()).rows)
    with duckdb.connect() as connection:
        dataset = pa_dataset.dataset(path)
        table = dataset.to_table()
        for name in ("BillingPeriodEnd", "BillingPeriodStart", "ChargePeriodEnd", "ChargePeriodStart"):
            table = table.set_column(table.column_names.index(name), name, table[name].cast("timestamp[us]"))
        connection.register("focus", table)
        yield connection


@pytest.mark.parametrize(("sql", "answer"), QUESTIONS.values(), ids=QUESTIONS.keys())
def test_a_question_has_the_right_answer(connection, sql, answer):
    assert connection.sql(sql).fetchall() == answer
