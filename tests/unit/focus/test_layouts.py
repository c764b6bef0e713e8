"""Published bills as other tools import them: documented columns, exact sums, the same bytes, nothing twice."""

import csv
import gzip
import io
import json
from collections import defaultdict
from decimal import Decimal

import pyarrow.parquet as pq
import pytest
from tests.unit.cli.stored import run
from tests.unit.focus.archives import at, publisher, store_ledger, sums, tree
from tests.unit.focus.ledgers import free, holder

from gpuwaste.focus.layouts import LAYOUTS, write_layout
from gpuwaste.focus.periods import parse_period
from gpuwaste.focus.restate import Restater
from gpuwaste.model.errors import InputError

DAY = parse_period("2026-11-01", "day")
NEXT = DAY.following
MONTH = parse_period("2026-11", "month")


def rows(a=0.5, hours=(0, 1, 24), **where):
    return [row for hour in hours for row in (holder("a", a, hour=hour, **where), free(1 - a, hour=hour, **where))]


@pytest.fixture
def archive(tmp_path):
    """Two days, one closed, restated, and its difference carried by the other."""
    store_ledger(tmp_path / "ledger", *rows())
    publisher(tmp_path / "ledger", tmp_path / "out").publish([DAY, NEXT], now=at(hours=97))
    store_ledger(tmp_path / "ledger", *rows(a=0.25, hours=(0,)), version="late")
    made = publisher(tmp_path / "ledger", tmp_path / "out")
    Restater(publisher=made).restate(DAY, reason="", now=at(hours=98))
    made.publish([DAY, NEXT], now=at(hours=98))
    return made.archive


def charged(tmp_path):
    """EffectiveCost by receiver (None: nobody) of all that was published."""
    found = defaultdict(Decimal)
    for path in (tmp_path / "out/cost-and-usage").rglob("*.parquet"):
        for team, cost in sums(pq.read_table(path)).items():
            found[team] += cost
    return dict(found)


def files(tmp_path, layout):
    return tree(tmp_path / f"out/layouts/{layout}")


def read_csv(data):
    return list(csv.DictReader(io.StringIO(data.decode())))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_once_and_again_only_when_something_changed(tmp_path, archive, layout):
    assert write_layout(archive, layout, [MONTH])
    before = files(tmp_path, layout)
    assert write_layout(archive, layout, [MONTH]) == []
    store_ledger(tmp_path / "ledger", *rows(a=0.75, hours=(24,)), version="more")
    publisher(tmp_path / "ledger", tmp_path / "out").publish([NEXT], now=at(hours=24 * 5))
    assert write_layout(archive, layout, [MONTH])
    after = files(tmp_path, layout)
    assert after != before
    write_layout(archive, layout, [MONTH])
    assert files(tmp_path, layout) == after


def test_finout_gets_a_file_a_day_whose_sums_are_what_was_charged(tmp_path, archive):
    write_layout(archive, "finout", [MONTH])
    found = files(tmp_path, "finout")
    assert sorted(found) == ["2026-11/2026-11-01.csv", "2026-11/2026-11-02.csv"]
    costs = defaultdict(Decimal)
    for name, data in found.items():
        for row in read_csv(data):
            assert row["UsageDate"] == name[8:18]
            costs[row["Team"] or None] += Decimal(row["Cost"])
    assert costs == charged(tmp_path)


def test_finout_takes_dollars_only(tmp_path):
    store_ledger(tmp_path / "ledger", *rows(currency="EUR"))
    made = publisher(tmp_path / "ledger", tmp_path / "out")
    made.publish([DAY], now=at(hours=97))
    with pytest.raises(InputError, match="Finout takes costs in USD, and these are in EUR"):
        write_layout(made.archive, "finout", [MONTH])
    assert not (tmp_path / "out/layouts").exists()


def test_vantage_gets_closed_days_in_its_words(tmp_path, archive):
    write_layout(archive, "vantage", [MONTH])
    found = files(tmp_path, "vantage")
    assert sorted(found) == ["2026-11/2026-11-01-1.csv"]
    (a, nobody) = sorted(read_csv(found["2026-11/2026-11-01-1.csv"]), key=lambda row: row["ResourceId"], reverse=True)
    assert a["ResourceId"] == "k8s://c1/teams/a"
    assert nobody["ResourceId"] == "c1/Unallocated"
    assert (a["ChargePeriodStart"], a["ChargePeriodEnd"], a["ChargeCategory"]) == ("2026-11-01", "2026-11-02", "Usage")
    assert (a["BilledCost"], a["ServiceName"], a["BillingCurrency"]) == ("2", "GPU Nodes", "USD")
    assert json.loads(a["Tags"])["gpuwaste.dev/team"] == "a"
    publisher(tmp_path / "ledger", tmp_path / "out").publish([NEXT], now=at(hours=24 * 6))
    write_layout(archive, "vantage", [MONTH])
    second = read_csv(files(tmp_path, "vantage")["2026-11/2026-11-02-1.csv"])
    kinds = {(row["ChargeCategory"], row["ResourceId"]): Decimal(row["BilledCost"]) for row in second}
    assert kinds["Credit", "k8s://c1/teams/a"] == Decimal("-0.5")


def test_vantage_files_have_no_more_rows_than_an_upload_may_have(tmp_path, monkeypatch):
    monkeypatch.setattr("gpuwaste.focus.layouts._VANTAGE_ROWS", 3)
    many = [holder(f"team-{n}", 0.125) for n in range(8)]
    store_ledger(tmp_path / "ledger", *many)
    made = publisher(tmp_path / "ledger", tmp_path / "out")
    made.publish([DAY], now=at(hours=97))
    write_layout(made.archive, "vantage", [MONTH])
    assert [len(read_csv(data)) for data in files(tmp_path, "vantage").values()] == [3, 3, 2]


def test_cloudzero_gets_a_drop_of_the_whole_month_and_a_manifest_that_points_to_it(tmp_path, archive):
    write_layout(archive, "cloudzero", [MONTH])
    found = files(tmp_path, "cloudzero")
    manifest = json.loads(found["20261101-20261201/manifest.json"])
    assert manifest["version"] == "1.0.0"
    drop = f"20261101-20261201/{manifest['current_drop_id']}/cost_data_1.csv.gz"
    assert sorted(found) == [drop, "20261101-20261201/manifest.json"]
    costs = defaultdict(Decimal)
    for row in read_csv(gzip.decompress(found[drop])):
        assert row["time/usage_start"].endswith("T00:00:00Z")
        assert row["lineitem/type"] in {"Usage", "Discount"}
        costs[row["resource/tag:gpuwaste.dev/team"] or None] += Decimal(row["cost/amortized_cost"])
    assert costs == charged(tmp_path)


def test_opencost_gets_the_answer_of_a_plugin_for_each_day(tmp_path, archive):
    write_layout(archive, "opencost", [MONTH])
    (answer,) = json.loads(files(tmp_path, "opencost")["2026-11/2026-11-01.json"])
    assert (answer["domain"], answer["currency"]) == ("gpuwaste", "USD")
    assert (answer["start"], answer["end"]) == ("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z")
    assert sum(cost["billedCost"] for cost in answer["costs"]) == 4
    assert len({cost["id"] for cost in answer["costs"]}) == len(answer["costs"])
    assert answer["costs"][0]["labels"]


def test_hours_of_a_day_become_one_row(tmp_path):
    store_ledger(tmp_path / "ledger", *rows(hours=range(24)))
    made = publisher(tmp_path / "ledger", tmp_path / "out", length="hour")
    hours = made.due(at(), at(days=1))
    made.publish(hours, now=at(hours=30))
    write_layout(made.archive, "finout", [MONTH])
    (data,) = files(tmp_path, "finout").values()
    assert [(row["Team"], row["Cost"]) for row in read_csv(data)] == [("a", "24"), ("", "24")]


def test_a_week_over_the_end_of_a_month_is_in_both(tmp_path):
    store_ledger(tmp_path / "ledger", *rows(hours=(29 * 24, 30 * 24)))
    made = publisher(tmp_path / "ledger", tmp_path / "out", length="week")
    weeks = made.due(at(days=25), at(days=40))
    made.publish(weeks, now=at(days=40))
    months = [MONTH, MONTH.following]
    write_layout(made.archive, "finout", months)
    assert sorted(files(tmp_path, "finout")) == ["2026-11/2026-11-30.csv", "2026-12/2026-12-01.csv"]


def test_the_command_writes_layouts_beside(tmp_path):
    store_ledger(tmp_path / "ledger", *rows())
    args = ["--ledger", str(tmp_path / "ledger"), "--archive", str(tmp_path / "out"), "--from", "2026-11-01"]
    done = run(
        "focus", "publish", *args, "--to", "2026-11-02", "--by", "team", "--layout", "finout", "--layout", "cloudzero"
    )
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out/layouts").iterdir()) == ["cloudzero", "finout"]
