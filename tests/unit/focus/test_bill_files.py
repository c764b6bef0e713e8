"""Bills as providers deliver them: packed, in parts, with nested columns and numbers of any type."""

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from tests.unit.focus.bills import bill, correction, other, usage
from tests.unit.focus.ledgers import free, holder, ledger

from gpuwaste.focus.bill import split_bill
from gpuwaste.focus.bill_files import open_bill, read_bill
from gpuwaste.focus.files import open_sink
from gpuwaste.focus.node_hours import collect_hours
from gpuwaste.focus.options import ExportOptions
from gpuwaste.focus.verify import verify
from gpuwaste.model.errors import InputError

NODE = {"provider_id": "aws:///use1-az1/i-0"}
HALVES = ledger(holder("a", 0.5, **NODE), free(0.5, **NODE))


def parquet(tmp_path, table, name="bill.parquet"):
    pq.write_table(table, tmp_path / name)
    return tmp_path / name


def csv(tmp_path, table, name="bill.csv", change=lambda text: text):
    pa_csv.write_csv(table, tmp_path / "plain.csv")
    data = change((tmp_path / "plain.csv").read_text(encoding="utf-8"))
    data = data if isinstance(data, bytes) else data.encode()
    (tmp_path / "plain.csv").unlink()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return tmp_path / name


def divided(table, days=HALVES, **options):
    chosen = ExportOptions(**options)
    return split_bill(table, collect_hours([days], chosen), chosen)


@pytest.mark.parametrize("name", ["bill.csv", "bill.CSV", "bill.csv.gz"])
def test_csv_files_are_read_packed_or_not(tmp_path, name):
    path = csv(tmp_path, bill(usage(), other("Tax", "8")), name)
    assert read_bill(path)["ListCost"].to_pylist() == [Decimal("98.32"), Decimal(8)]


def test_a_mark_of_byte_order_and_lines_inside_of_a_value_are_no_harm(tmp_path):
    table = bill(usage(Tags='{"env":\n"prod"}'))
    path = csv(tmp_path, table, change=lambda text: "\ufeff" + text.replace("\r", ""))
    assert read_bill(path)["Tags"].to_pylist() == ['{"env":\n"prod"}']


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("Acme", "Acmé").encode("latin-1"), "invalid UTF8"),
        (lambda text: text + "one,two\n", "Expected 65 columns, got 2"),
        (
            lambda text: "".join(f"{line},{line.split(',')[0]}\n" for line in text.splitlines()),
            "several columns AllocatedMethodDetails",
        ),
    ],
    ids=["not utf-8", "a short row", "one name twice"],
)
def test_a_damaged_csv_is_one_clear_line(tmp_path, change, message):
    path = csv(tmp_path, bill(usage()), change=change)
    with pytest.raises(InputError, match=rf"bill\.csv: .*({message})"):
        read_bill(path)


def test_a_parquet_file_with_a_damaged_page_is_one_clear_line(tmp_path):
    path = parquet(tmp_path, bill(*[usage(BillingAccountName=str(number)) for number in range(500)]))
    data = bytearray(path.read_bytes())
    data[100:3000] = b"\xff" * 2900
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bill\.parquet: not readable"):
        read_bill(path)


def test_a_folder_of_files_is_one_bill(tmp_path):
    folder = tmp_path / "delivery"
    folder.mkdir()
    parquet(folder, bill(usage(), other("Tax", "8")), "part-0.parquet")
    parquet(folder, bill(usage(hour=0, price="1", x_Region="eu"), without=["SubAccountType"]), "part-1.parquet")
    whole = open_bill(folder)
    assert [number for number, _ in whole.batches()] == sorted({number for number, _ in whole.batches()})
    assert [len(table) for _, table in whole.batches(lambda number: number > 0)] == [1]
    assert read_bill(folder)["x_Region"].to_pylist() == [None, None, "eu"]
    rows = divided(read_bill(folder)).rows
    assert sum(rows["BilledCost"].to_pylist()) == Decimal("107.32")


def test_files_whose_own_columns_differ_in_type_are_refused(tmp_path):
    parquet(tmp_path, bill(usage()).append_column("x_Code", pa.array(["7"])), "a.parquet")
    parquet(tmp_path, bill(usage()).append_column("x_Code", pa.array([7])), "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: has column x_Code as int64, and a file before it as string"):
        list(open_bill(tmp_path).batches())


def test_nested_columns_of_focus_become_json_without_losing_a_digit_or_key(tmp_path):
    pairs = pa.array([[("env", "prod"), ("env", "test")]], pa.map_(pa.string(), pa.string()))
    details = pa.array([{"GpuCount": Decimal("8.00"), "Kind": "é", "Since": None}])
    table = bill(usage())
    table = table.set_column(table.column_names.index("Tags"), "Tags", pairs)
    table = table.set_column(table.column_names.index("SkuPriceDetails"), "SkuPriceDetails", details)
    (row,) = read_bill(parquet(tmp_path, table)).to_pylist()
    assert row["Tags"] == '{"env":"prod","env":"test"}'
    assert json.loads(row["SkuPriceDetails"], parse_float=Decimal) == {
        "GpuCount": Decimal("8.00"),
        "Kind": "é",
        "Since": None,
    }


OWN = {
    "x_List": pa.array([["abc", "d"]]),
    "x_Numbers": pa.array([[1, 2]]),
    "x_Map": pa.array([[("k", Decimal("1.50"))]], pa.map_(pa.string(), pa.decimal128(10, 2))),
    "x_Flag": pa.array([True]),
    "x_Bytes": pa.array([b"\xff\x00"]),
    "x_Time": pa.array([datetime(2026, 11, 1, tzinfo=UTC)], pa.timestamp("ns", tz="UTC")),
    "x_Amount": pa.array([Decimal("1.234567890123456789")], pa.decimal128(38, 18)),
}


@pytest.mark.parametrize("name", OWN)
def test_columns_of_the_providers_own_keep_their_type(tmp_path, name):
    path = parquet(tmp_path, bill(usage()).append_column(name, OWN[name]))
    rows = divided(read_bill(path)).rows
    assert rows.schema.field(name).type == OWN[name].type
    assert rows[name].to_pylist() == OWN[name].to_pylist() * 2


def test_in_a_csv_nested_values_are_json_and_bytes_base64(tmp_path):
    table = bill(usage())
    for name, values in OWN.items():
        table = table.append_column(name, values)
    rows = divided(read_bill(parquet(tmp_path, table))).rows
    with open_sink(tmp_path / "out.csv", rows.schema) as sink:
        sink.write(rows)
    row = pa_csv.read_csv(tmp_path / "out.csv").to_pylist()[0]
    assert (row["x_List"], row["x_Map"], row["x_Bytes"]) == ('["abc","d"]', '{"k":1.50}', "/wA=")


def test_no_column_of_a_bill_is_lost_for_its_name(tmp_path):
    table = bill(usage(x_Team="their team", x_BillTeam="taken"))
    table = table.append_column("lineItem/UsageType", pa.array(["BoxUsage"]))
    split = divided(read_bill(parquet(tmp_path, table)))
    row = split.rows.to_pylist()[0]
    assert (row["x_Team"], row["x_BillTeam"], row["x_BillBillTeam"]) == ("a", "taken", "their team")
    assert row["x_LineItemUsageType"] == "BoxUsage"
    assert [str(finding) for finding in split.findings] == [
        "bill: in the export x_Team is x_BillBillTeam: these names are ours",
        "bill: in the export lineItem/UsageType is x_LineItemUsageType: FOCUS wants x_ before what is not its own",
    ]


def test_a_number_of_32_bits_is_what_was_written(tmp_path):
    table = bill(usage(price="0.1"), metric=pa.float64())
    price = table["ListUnitPrice"].cast(pa.float32())
    path = parquet(tmp_path, table.set_column(table.column_names.index("ListUnitPrice"), "ListUnitPrice", price))
    assert read_bill(path)["ListUnitPrice"].to_pylist() == [Decimal("0.1")]


PARTS = {
    "AllocatedMethodId": "provider-split-v2",
    "AllocatedMethodDetails": '{"Elements":[{"AllocatedRatio":1}]}',
    "AllocatedResourceId": "pod-7",
    "AllocatedResourceName": "pod-7",
    "AllocatedTags": '{"k8s/app":"x"}',
}


def test_what_the_provider_divided_before_is_not_divided_again_and_keeps_who_received_it(tmp_path):
    rows = [usage(**PARTS), usage(9, **PARTS), usage()]
    split = divided(read_bill(parquet(tmp_path, bill(*rows))))
    assert split.charges == 1
    assert [str(finding) for finding in split.findings] == [
        "node node-1: 1 rows of the bill are parts of a divided charge already; kept so"
    ]
    for row in split.rows.to_pylist()[:2]:
        assert {name: row[name] for name in PARTS} == PARTS


@pytest.mark.parametrize("text", ["{not json", "[1]", "null", '{"Elements":null}', '{"Elements":[1]}'])
def test_contracts_that_are_applied_in_no_known_form_stay_as_they_came(tmp_path, text):
    rows = divided(read_bill(parquet(tmp_path, bill(usage(ContractApplied=text))))).rows
    assert json.dumps(rows["ContractApplied"].to_pylist()).count(json.dumps(text)[1:-1]) == 2


TIMES = "Hour,1 Hour,100 Hours,Instance-Hours,VM Hours,GPU-Hours,vCPU-Hours,Days,Months,Seconds,GiB-Hours,gibibyte hour"


@pytest.mark.parametrize("unit", TIMES.split(","))
def test_a_node_is_billed_by_its_time_or_that_of_its_parts(tmp_path, unit):
    assert divided(read_bill(parquet(tmp_path, bill(usage(PricingUnit=unit))))).charges == 1


@pytest.mark.parametrize("unit", ["GB", "GB-Months", "Requests", "10K Operations", "Units", "Count"])
def test_what_is_not_time_is_not_a_nodes(tmp_path, unit):
    assert divided(read_bill(parquet(tmp_path, bill(usage(PricingUnit=unit))))).charges == 0


@pytest.mark.parametrize("category", ["Storage", "Networking"])
def test_volumes_and_traffic_pass_through_even_where_time_or_nothing_is_their_unit(tmp_path, category):
    rows = [usage(ServiceCategory=category), correction(ServiceCategory=category)]
    assert divided(read_bill(parquet(tmp_path, bill(*rows)))).charges == 0


def test_machines_of_two_scale_sets_with_one_number_are_told_apart(tmp_path):
    paths = [f"/subscriptions/s/resourceGroups/MC_g/virtualMachineScaleSets/{pool}/virtualMachines/0" for pool in "ab"]
    day = ledger(
        *[
            holder(pool, 1, provider_id=f"azure://{path}", node=pool, gpu=pool)
            for pool, path in zip("ab", paths, strict=True)
        ]
    )
    foreign = "/subscriptions/other/virtualMachineScaleSets/z/virtualMachines/0"
    rows = [usage(ResourceId=paths[0].lower()), usage(ResourceId=paths[1]), usage(ResourceId=foreign)]
    split = divided(read_bill(parquet(tmp_path, bill(*rows))), day)
    assert [row["AllocatedResourceName"] for row in split.rows.to_pylist()] == ["a", "b", None]
    assert split.findings == ()


def test_a_bill_of_wide_amounts_is_its_own_origin(tmp_path):
    wide = usage() | {"BilledCost": Decimal(1234567890123456), "EffectiveCost": Decimal("0.1234567890123456")}
    origin = parquet(tmp_path, bill(wide, usage(7), metric=pa.decimal256(60, 22)))
    split = divided(read_bill(origin))
    with open_sink(tmp_path / "out.parquet", split.rows.schema) as sink:
        sink.write(split.rows)
    assert list(verify(tmp_path / "out.parquet", origin=origin)) == []


def test_a_folder_can_be_the_origin_and_its_rows_are_numbered_through(tmp_path):
    folder = tmp_path / "delivery"
    folder.mkdir()
    parquet(folder, bill(usage(), other("Tax", "8")), "a.parquet")
    parquet(folder, bill(usage(7)), "b.parquet")
    rows = divided(read_bill(folder)).rows
    with open_sink(tmp_path / "out.parquet", rows.schema) as sink:
        sink.write(rows.slice(0, 3))
    (found,) = verify(tmp_path / "out.parquet", origin=folder)
    assert (found.where, found.why) == ("row 3 of the bill", "the charge is missing from the file")


def test_a_file_with_nested_tags_is_verified(tmp_path):
    rows = divided(read_bill(parquet(tmp_path, bill(usage())))).rows
    tags = pa.array([[("env", "prod")]] * 2, pa.map_(pa.string(), pa.string()))
    rows = rows.set_column(rows.column_names.index("Tags"), "Tags", tags)
    assert list(verify(parquet(tmp_path, rows, "out.parquet"))) == []
