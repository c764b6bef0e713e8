"""Usage of GPUs to ledger, objects, plan, FOCUS and report, on real input and through a kill of the operator."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.cluster.crds import wait_until_served
from tests.cluster.pytest_support import control_plane_or_skip
from tests.unit.api.samples import all_kinds

from gpuwaste.api import GROUP, KINDS
from gpuwaste.ledger.inputs import InputStore
from gpuwaste.ledger.schema import WASTE_CATEGORIES
from gpuwaste.ledger.store import open_store
from gpuwaste.ledger.write import hour_file, read_ledger
from gpuwaste.model.units import NS_PER_HOUR, NS_PER_MINUTE, hour_start

from .traces import require_traces
from .world import BACK, build, kill, run, start_agents, start_operator, wait_for

SHARED = Path(__file__).parents[3] / ".." / "shared"
CLUSTER = "openb"


@pytest.fixture(scope="module")
def control_plane(pytestconfig):
    """A control plane of its own: what other tests leave in a shared one would be shown and billed, too."""
    require_traces()
    with control_plane_or_skip(pytestconfig, controllers=False) as access:
        yield access


@pytest.fixture(scope="module")
def world(control_plane, tmp_path_factory):
    root = Path(__file__).parents[3]
    control_plane.kubectl("apply", "--server-side", "-f", str(root / "crds"))
    wait_until_served(control_plane, (f"{kind.plural}.{GROUP}" for kind in KINDS.values()))
    world = run(build(control_plane, tmp_path_factory.mktemp("main-job")))
    try:
        start_agents(world)
        yield world
    finally:
        world.stop()


def caught_up(store):
    """Whether the newest stored window ended less than five minutes ago."""
    inputs = InputStore.open(open_store(str(store)), CLUSTER)
    hours = inputs.hours()
    if not hours:
        return False
    windows = inputs.load(hours[-1]).windows
    newest = pc.max(windows["window_start_ns"]).as_py() + NS_PER_MINUTE
    journals = pc.count_distinct(windows["journal_id"]).as_py()
    return journals == 10 and datetime.now(UTC).timestamp() - newest / 1e9 < 300


def closed_hours(world):
    """The hours that agents measured and that were over when the world was made; later ones do not count."""
    hours = []
    hour = hour_start(world.start)
    while hour < hour_start(world.start + BACK):
        hours.append(hour)
        hour += timedelta(hours=1)
    return hours


def up_to_date(world, store):
    """Whether every closed hour was computed from what is stored for it now."""
    opened = open_store(str(store))
    inputs = InputStore.open(opened, CLUSTER)
    for hour in closed_hours(world):
        name = hour_file(CLUSTER, hour)
        if opened.read_or_none(name) is None:
            return False
        if opened.table_metadata(name)[b"input_hash"].decode() != inputs.load(hour).input_hash():
            return False
    return True


@pytest.fixture(scope="module")
def store(world, control_plane):
    """The store of an operator that was killed in the middle and started again."""
    store = world.folder / "killed"
    first = start_operator(world, control_plane, store)
    inputs = wait_for("windows of two hours", lambda: len(open_store(str(store)).files("inputs")) >= 4, seconds=60)
    assert inputs
    kill(first)
    start_operator(world, control_plane, store)
    wait_for("all windows up to now", lambda: caught_up(store), seconds=180)
    wait_for("closed hours that follow from all windows", lambda: up_to_date(world, store), seconds=120)
    return store


@pytest.fixture(scope="module")
def rows(world, store):
    hours = closed_hours(world)
    rows = read_ledger(open_store(str(store)), start=hours[0], end=hours[-1] + timedelta(hours=1))
    assert set(rows["resource"].to_pylist()) == {"gpu", "cpu", "memory"}
    return rows.filter(pc.equal(rows["resource"], "gpu"))


def objects(control_plane, kind, *flags):
    return json.loads(control_plane.kubectl("get", kind, *flags, "-o", "json"))["items"]


def test_every_gpu_workload_is_shown(world, store, control_plane):
    def shown():
        items = objects(control_plane, "gpuwaste", "-A")
        refs = [(item["metadata"]["namespace"], item["spec"]["workloadRef"]) for item in items if "status" in item]
        return {(namespace, ref["kind"], ref["name"]) for namespace, ref in refs}

    wait_for("a GPUWaste for every workload", lambda: shown() >= world.workloads, seconds=60)
    assert shown() == world.workloads
    table = control_plane.kubectl("get", "gpuwaste", "-A")
    print(table)
    assert table.splitlines()[0].split()[:4] == ["NAMESPACE", "NAME", "WORKLOAD", "GPUS"]
    assert len(table.splitlines()) == 1 + len(world.workloads)
    assert "<unknown>" in table, "nobody knows a price of the A30"


def test_first_advice_is_announced(store, control_plane):
    def shown():
        return [item for item in objects(control_plane, "gpuwaste", "-A") if "status" in item]

    (item, *_) = wait_for("an object with a status", shown, seconds=60)
    ready = next(c for c in item["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Collecting")
    assert "First advice is due at" in ready["message"]


def sums(rows, *by):
    found = {}
    for row in rows.to_pylist():
        parts = (row["effective"] or 0) + sum(row[name] for name in WASTE_CATEGORIES)
        key = tuple(row[name] for name in by)
        total = found.setdefault(key, [0, 0, 0, 0])
        for place, value in enumerate((row["owned"], parts, row["borrowed"], row["lent"])):
            total[place] += value
    return found


@pytest.mark.parametrize(
    "by",
    [
        ("hour", "gpu_uuid"),
        ("namespace", "workload_kind", "workload_name"),
        ("namespace",),
        ("pool",),
        ("cluster",),
    ],
    ids="+".join,
)
def test_every_nanosecond_is_in_one_part(rows, by):
    for key, (owned, parts, borrowed, lent) in sums(rows, *by).items():
        assert owned + borrowed == parts + lent, key
    for key, (owned, parts, borrowed, lent) in sums(rows, "hour", "gpu_uuid").items():
        assert (owned, parts) == (NS_PER_HOUR, NS_PER_HOUR), key
        assert borrowed == lent, key


def test_somebody_borrowed_and_everything_was_measured_where_it_can_be(world, rows):
    assert sum(row["borrowed"] for row in rows.to_pylist()) > 0
    middle = rows.filter(pc.equal(rows["hour"], closed_hours(world)[1]))
    origins = set(pc.unique(middle.filter(pc.equal(middle["row_kind"], "holder"))["origin"]).to_pylist())
    assert origins, "no holder in a full hour"
    a100 = middle.filter(pc.equal(middle["node"], "mig-a100"))
    assert set(a100["effective"].to_pylist()) <= {None, 0}, "an A100 under MIG has no source of activity"


def test_the_pools_add_up_to_the_ledger(world, store, rows, control_plane):
    models = {"A10-24GB", "A100-80GB", "A30-24GB", "T4-16GB", "H100-80GB"}

    def shown():
        pools = [pool for pool in objects(control_plane, "gpupools") if "status" in pool]
        return pools if {pool["spec"]["gpuModel"] for pool in pools} == models else None

    pools = wait_for("a pool of every model", shown, seconds=60)
    gpus = sum(pool["status"]["capacity"]["gpus"] for pool in pools)
    assert gpus == sum(len(node["gpus"]) for node in world.nodes.values())


def test_a_reservation_of_an_unknown_gpu_is_told_so(world, store, control_plane):
    body = all_kinds()["GPUReservation"].manifest()
    body["metadata"] = {"name": "unknown-model"}
    body["spec"]["gpuModel"] = "H1000"
    control_plane.kubectl("apply", "-f", "-", input=json.dumps(body))

    def told():
        (item,) = [i for i in objects(control_plane, "gpureservations") if i["metadata"]["name"] == "unknown-model"]
        return next((c for c in item.get("status", {}).get("conditions", ()) if c["type"] == "Valid"), None)

    condition = wait_for("a condition", told, seconds=30)
    assert (condition["status"], condition["reason"]) == ("False", "Invalid")
    assert "H1000" in condition["message"]


def test_a_plan_was_made(store, control_plane):
    plans = wait_for("a plan", lambda: objects(control_plane, "rightsizingplans"), seconds=60)
    objective = plans[0]["spec"]["objective"]
    assert Decimal(objective["bound"]) <= Decimal(objective["planned"]) <= Decimal(objective["current"])


def test_killed_and_undisturbed_operators_write_the_same_bytes(world, store, control_plane):
    reference = world.folder / "reference"
    operator = start_operator(world, control_plane, reference)
    wait_for("all windows up to now", lambda: caught_up(reference), seconds=120)
    hours = closed_hours(world)
    ours, theirs = open_store(str(store)), open_store(str(reference))

    def equal():
        return all(
            ours.read_or_none(name) is not None and ours.read_or_none(name) == theirs.read_or_none(name)
            for name in (hour_file(CLUSTER, hour) for hour in hours)
        )

    wait_for("equal ledgers", equal, seconds=60)
    operator.terminate()
    operator.wait(timeout=30)  # what Kubernetes grants


def test_replay_gives_the_same_bytes(world, store, tmp_path):
    hours = closed_hours(world)
    command = [sys.executable, "-c", "from gpuwaste.cli.main import main; main()", "replay"]
    command += ["--inputs", str(store), "--ledger", str(tmp_path / "ledger")]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    for hour in hours:
        name = hour_file(CLUSTER, hour)
        assert open_store(str(tmp_path)).read(name) == open_store(str(store)).read(name)


@pytest.fixture(scope="module")
def focus_file(world, store):
    days = sorted({hour.date().isoformat() for hour in closed_hours(world)})
    out = world.folder / "focus.parquet"
    command = [sys.executable, "-c", "from gpuwaste.cli.main import main; main()", "focus", "export"]
    command += ["--ledger", str(store), "--from", days[0], "--to", days[-1], "--out", str(out)]
    done = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    assert "A30" in done.stderr, "nodes without a price are named"
    return out


def test_the_focus_file_verifies(focus_file):
    command = [sys.executable, "-c", "from gpuwaste.cli.main import main; main()", "focus", "verify", str(focus_file)]
    done = subprocess.run(command, check=False, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_official_validator_finds_nothing(focus_file):
    validate = SHARED / "focus" / "validate.sh"
    if not validate.exists():
        pytest.skip("the shared folder with the official model is not here")
    done = subprocess.run([str(validate), str(focus_file)], check=False, timeout=600, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_bill_equals_the_nodes_cost_to_the_last_digit(focus_file, rows):
    table = pq.read_table(focus_file)
    ours = pc.is_in(table["ChargePeriodStart"], value_set=pc.unique(rows["hour"]).cast(table["ChargePeriodStart"].type))
    billed = sum(table.filter(ours)["EffectiveCost"].to_pylist(), Decimal(0))
    expected = Decimal(0)
    for (cost, hour, node), owned in _owned(rows).items():
        gpus = len({row["gpu_uuid"] for row in rows.to_pylist() if (row["hour"], row["node"]) == (hour, node)})
        assert owned == gpus * NS_PER_HOUR
        expected += cost * gpus
    assert billed == expected


def _owned(rows):
    found = {}
    for row in rows.to_pylist():
        if row["effective_unit_cost"] is not None:
            key = (row["effective_unit_cost"], row["hour"], row["node"])
            found[key] = found.get(key, 0) + row["owned"]
    return found
