"""A provider's FOCUS export as the source of prices."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.helpers import facts as fact
from tests.helpers.facts import HOUR

from gpuwaste.model.errors import InputError
from gpuwaste.pricing.bills import Exchange, bill_files, machine_names, read_bill_prices
from gpuwaste.pricing.facts import NodeWeights, PriceSources, price_facts

AWS = "aws:///us-east-1a/i-0abc"


def charge(effective="8", *, start=HOUR, hours=1, resource="i-0abc", currency="USD", category="Usage", **more):
    return {
        "ChargeCategory": category,
        "ChargePeriodStart": start.isoformat(),
        "ChargePeriodEnd": (start + timedelta(hours=hours)).isoformat(),
        "ResourceId": resource,
        "BillingCurrency": currency,
        "ListCost": more.get("list", "10"),
        "ContractedCost": more.get("contracted", "9"),
        "BilledCost": more.get("billed", "7"),
        "EffectiveCost": effective,
        "PricingQuantity": more.get("quantity", str(hours)),
        "PricingUnit": more.get("unit", "Hours"),
        "SkuId": more.get("sku", "compute"),
    }


def bill(tmp_path, *charges, name="bill.csv"):
    path = tmp_path / name
    table = pa.Table.from_pylist(list(charges))
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    else:
        lines = [",".join(table.column_names)] + [",".join(map(str, row.values())) for row in table.to_pylist()]
        path.write_text("\n".join(lines) + "\n")
    return path


def prices(*paths, node=None, gpus=8, hour=HOUR, exchange=None, weights=None, **more):
    node = node or fact.node(gpus=gpus, cpu_milli=64_000, memory_bytes=512 << 30)
    node = replace(node, data=replace(node.data, provider_id=AWS))
    sources = PriceSources(bills=read_bill_prices(paths, exchange), weights=weights or NodeWeights())
    return {f.data.product: f for f in price_facts([node, *more.get("facts", ())], sources=sources, hour=hour)}


@pytest.mark.parametrize("name", ["bill.csv", "bill.parquet"])
def test_the_bill_comes_before_all_lists(tmp_path, name):
    found = prices(bill(tmp_path, charge(), name=name))["H100-80GB"].data
    assert (found.source, found.date, found.currency) == ("Bill", "2026-11-02", "USD")
    costs = (found.list_unit_cost, found.contracted_unit_cost, found.billed_unit_cost, found.effective_unit_cost)
    assert costs == ("1.25", "1.125", "0.875", "1")


def test_a_day_counts_by_the_hours_that_were_charged(tmp_path):
    day = HOUR.replace(hour=0)
    found = prices(bill(tmp_path, charge("80", start=day, hours=24, quantity="10")))
    assert found["H100-80GB"].data.effective_unit_cost == "1"


def test_all_charges_of_a_machine_add_up_and_other_categories_are_none(tmp_path):
    path = bill(
        tmp_path,
        charge("8"),
        charge("16", sku="licence"),
        charge("-8", sku="credit", quantity=""),
        charge("99", category="Tax"),
        charge("99", resource="vol-1"),
    )
    assert prices(path)["H100-80GB"].data.effective_unit_cost == "2"


def test_a_bill_of_a_spot_node_says_so(tmp_path):
    node = fact.node(gpus=8, labels={"karpenter.sh/capacity-type": "spot"})
    found = prices(bill(tmp_path, charge("8")), node=node)["H100-80GB"].data
    assert (found.source, found.effective_unit_cost) == ("SpotBill", "1")


@pytest.mark.parametrize("other", [{"PricingUnit": "GB"}, {"PricingUnit": "GB-Months"}, {"ServiceCategory": "Storage"}])
def test_traffic_and_volumes_are_no_price_of_the_machine_that_they_name(tmp_path, other):
    compute = {"ServiceCategory": "Compute"}
    path = bill(tmp_path, charge("8") | compute, charge("99", sku="other") | compute | other)
    assert prices(path)["H100-80GB"].data.effective_unit_cost == "1"


def test_hours_without_a_charge_fall_back_to_a_list(tmp_path):
    found = prices(bill(tmp_path, charge()), hour=HOUR + timedelta(hours=1))
    assert found["H100-80GB"].data.source == "BuiltIn"


def test_another_currency_needs_a_rate(tmp_path):
    path = bill(tmp_path, charge(currency="EUR"))
    assert prices(path)["H100-80GB"].data.currency == "EUR"
    with pytest.raises(InputError, match=r"bill\.csv: amounts are in EUR, and prices are wanted in USD; set .*EUR"):
        read_bill_prices([path], Exchange(currency="USD"))
    found = prices(path, exchange=Exchange(currency="USD", rates={"EUR": Decimal("1.25")}))["H100-80GB"].data
    assert (found.currency, found.effective_unit_cost) == ("USD", "1.25")


def test_several_currencies_are_refused(tmp_path):
    path = bill(tmp_path, charge(), charge(currency="EUR", resource="i-0def"))
    with pytest.raises(InputError, match="amounts are in EUR and USD, which cannot be added"):
        read_bill_prices([path])
    assert read_bill_prices([path], Exchange(currency="USD", rates={"EUR": Decimal(1)}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"EffectiveCost": "cheap"}, "not readable as a FOCUS bill"),
        ({"ChargePeriodStart": "yesterday"}, "not readable as a FOCUS bill"),
        ({"ChargePeriodEnd": HOUR.isoformat()}, "ends before it starts"),
    ],
    ids=["no number", "no time", "no length"],
)
def test_wrong_values_name_the_file(tmp_path, change, says):
    with pytest.raises(InputError, match=rf"bill\.csv: .*{says}"):
        read_bill_prices([bill(tmp_path, charge() | change)])


@pytest.mark.parametrize("lost", ["ChargeCategory", "ResourceId", "BillingCurrency"])
def test_a_file_without_the_columns_is_no_bill(tmp_path, lost):
    row = charge()
    del row[lost]
    with pytest.raises(InputError, match=f"column {lost} is missing"):
        read_bill_prices([bill(tmp_path, row)])


def test_the_same_charge_in_two_files_is_refused(tmp_path):
    paths = [bill(tmp_path, charge(), name=name) for name in ("a.csv", "b.csv")]
    with pytest.raises(InputError, match=r"b\.csv: holds charges that .*a\.csv holds as well, of i-0abc"):
        read_bill_prices(paths)
    assert read_bill_prices([paths[0], bill(tmp_path, charge(sku="licence"), name="c.csv")])


def test_files_are_found_in_folders(tmp_path):
    paths = [bill(tmp_path, charge(), name=name) for name in ("b.parquet", "a.csv")]
    (tmp_path / "readme.txt").write_text("no bill")
    assert bill_files([tmp_path]) == sorted(paths)
    with pytest.raises(InputError, match="no such file or folder"):
        bill_files([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file that ends in"):
        bill_files([tmp_path / "empty"])


def test_a_version_1_0_bill_has_enough_columns(tmp_path):
    row = charge(unit="Hrs")
    for name in ("SkuId", "ContractedCost"):
        del row[name]
    found = prices(bill(tmp_path, row))["H100-80GB"].data
    assert (found.effective_unit_cost, found.contracted_unit_cost) == ("1", None)


def test_names_of_machines_of_all_providers():
    assert machine_names("aws:///us-east-1a/i-0AbC") == ("/us-east-1a/i-0abc", "i-0abc")
    assert machine_names("arn:aws:ec2:us-east-1:1:instance/i-0abc")[-1] == "i-0abc"
    azure = "azure:///subscriptions/S/virtualMachineScaleSets/x/virtualMachines/3"
    assert machine_names(azure) == ("/subscriptions/s/virtualmachinescalesets/x/virtualmachines/3",)
    assert machine_names(azure.removeprefix("azure://")) == machine_names(azure)


def test_the_parts_of_a_node_price_by_weights(tmp_path):
    weights = NodeWeights(gpu=Decimal("0.9"), cpu=Decimal("0.06"), memory=Decimal("0.04"))
    found = prices(bill(tmp_path, charge("8")), weights=weights)
    costs = {name: Decimal(f.data.effective_unit_cost) for name, f in found.items()}
    assert costs["H100-80GB"] == Decimal("0.9")
    assert costs["H100-80GB"] * 8 + costs["cpu"] * 64 + costs["memory"] * 512 == 8


def test_a_machine_is_charged_while_it_boots(tmp_path):
    came = HOUR + timedelta(minutes=30)
    found = prices(bill(tmp_path, charge(quantity="0.75")), node=fact.node(start=came, gpus=8))["H100-80GB"]
    assert found.valid_from == HOUR + timedelta(minutes=15)
    long_ago = fact.node(start=datetime(2026, 10, 1, tzinfo=UTC), gpus=8)
    assert prices(bill(tmp_path, charge()), node=long_ago)["H100-80GB"].valid_from == long_ago.valid_from


def test_charges_that_begin_and_end_inside_an_hour_count_for_their_time(tmp_path):
    quarter = charge("3", start=HOUR + timedelta(minutes=15), hours=0.25, quantity="0.25")
    found = prices(bill(tmp_path, quarter), gpus=1)["H100-80GB"].data
    assert found.effective_unit_cost == "12", "a quarter of an hour for 3"
    rest = charge("3", start=HOUR + timedelta(minutes=30), hours=0.5, quantity="0.5")
    found = prices(bill(tmp_path, quarter, rest), gpus=1)["H100-80GB"].data
    assert found.effective_unit_cost == "8", "three quarters of an hour for 6"
    before = charge("4", start=HOUR - timedelta(hours=1), hours=1)
    assert read_bill_prices([bill(tmp_path, before, quarter)]).hours() == {HOUR, HOUR - timedelta(hours=1)}


def test_periods_in_local_time_across_the_end_of_summer(tmp_path):
    """The 25 hours of a day in Berlin at the end of October are one charge period; the bill says it in local time."""
    day = charge("50", hours=25, quantity="25")
    day |= {"ChargePeriodStart": "2026-10-25T00:00:00+02:00", "ChargePeriodEnd": "2026-10-26T00:00:00+01:00"}
    for hour in (datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 22, tzinfo=UTC)):
        assert prices(bill(tmp_path, day), gpus=1, hour=hour)["H100-80GB"].data.effective_unit_cost == "2"
    outside = prices(bill(tmp_path, day), gpus=1, hour=datetime(2026, 10, 25, 23, tzinfo=UTC))
    assert outside["H100-80GB"].data.source == "BuiltIn"
