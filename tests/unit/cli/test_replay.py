"""`replay` and `ledger export-inputs`: the same inputs give the same bytes, bad ones give nothing."""

import json

import pytest

from .stored import files, run, store_inputs


@pytest.fixture
def inputs(tmp_path):
    return store_inputs(tmp_path / "data") / "inputs"


@pytest.fixture
def exported(tmp_path, inputs):
    result = run("ledger", "export-inputs", "--inputs", inputs, "--out", tmp_path / "exported")
    assert result.exit_code == 0, result.output
    return tmp_path / "exported"


def replayed(tmp_path, name, *arguments):
    result = run("replay", *arguments, "--ledger", tmp_path / name)
    assert result.exit_code == 0, result.output
    return files(tmp_path / name)


def test_equal_inputs_give_equal_bytes(tmp_path, inputs):
    first = replayed(tmp_path, "first", "--inputs", inputs)
    assert len(first) == 5
    assert all(name.startswith("cluster=test/date=2026-11-02/hour=") for name in first)
    assert replayed(tmp_path, "second", "--inputs", inputs.parent) == first


def test_exported_inputs_give_the_same_ledger(tmp_path, inputs, exported):
    first = replayed(tmp_path, "first", "--inputs", inputs)
    given = ("--windows", exported / "windows.jsonl", "--facts", exported / "facts.jsonl")
    assert replayed(tmp_path, "second", *given) == first


def test_the_cluster_survives_agents_that_do_not_know_it(tmp_path):
    inputs = store_inputs(tmp_path / "data", agents_know_it=False)
    run("ledger", "export-inputs", "--inputs", inputs, "--out", tmp_path / "out")
    given = ("--windows", tmp_path / "out" / "windows.jsonl", "--facts", tmp_path / "out" / "facts.jsonl")
    assert replayed(tmp_path, "second", *given) == replayed(tmp_path, "first", "--inputs", inputs)


def test_the_order_of_lines_changes_nothing(tmp_path, exported):
    given = ("--windows", exported / "windows.jsonl", "--facts", exported / "facts.jsonl")
    first = replayed(tmp_path, "first", *given)
    for path in exported.iterdir():
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*reversed(lines), lines[0], ""]))
    assert replayed(tmp_path, "second", *given) == first


def test_facts_without_hours_hold_wherever_they_overlap(tmp_path, exported):
    lines = [json.loads(line) for line in (exported / "facts.jsonl").read_text().splitlines()]
    bare = [{name: value for name, value in line.items() if name != "hours"} for line in lines]
    (exported / "facts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in bare))
    result = run(
        *("replay", "--windows", exported / "windows.jsonl", "--facts", exported / "facts.jsonl"),
        *("--ledger", tmp_path / "ledger"),
    )
    assert result.exit_code == 0, result.output
    assert "4 hours" in result.output  # from the first window to the last, the hour without windows included


def test_several_clusters_stay_apart(tmp_path):
    data = tmp_path / "data"
    store_inputs(data)
    store_inputs(data, cluster="other", node="node-b")
    both = replayed(tmp_path, "both", "--inputs", data)
    assert {name.split("/")[0] for name in both} == {"cluster=test", "cluster=other"}
    alone = replayed(tmp_path, "alone", "--inputs", data, "--cluster", "other")
    assert alone == {name: data for name, data in both.items() if name.startswith("cluster=other/")}
    assert run("ledger", "export-inputs", "--inputs", data, "--out", tmp_path / "x").exit_code == 1
    assert not (tmp_path / "x").exists()


def test_a_root_with_inputs_gets_its_ledger_beside_them(tmp_path, inputs):
    root = inputs.parent
    assert run("replay", "--inputs", root, "--ledger", root).exit_code == 0
    assert (root / "ledger" / "cluster=test").is_dir()
    assert not (root / "cluster=test").exists()


def test_team_rules_decide_the_team(tmp_path, inputs):
    rules = tmp_path / "teams.yaml"
    rules.write_text("- source: namespace\n  match: team-(.)\n")
    assert run("replay", "--inputs", inputs, "--ledger", tmp_path / "l", "--team-rules", rules).exit_code == 0
    teams = json.loads(run("report", "--ledger", tmp_path / "l", "-o", "json").stdout)
    assert {row["team"] for row in teams} == {"", "a", "b"}


def test_team_rules_stored_with_the_inputs_are_used_and_exported(tmp_path, inputs):
    rules = inputs / "cluster=test" / "team-rules.json"
    rules.write_text('{"rules": [{"source": "namespace", "match": "team-(.)"}]}')
    first = replayed(tmp_path, "first", "--inputs", inputs)
    teams = json.loads(run("report", "--ledger", tmp_path / "first", "-o", "json").stdout)
    assert {row["team"] for row in teams} == {"", "a", "b"}
    run("ledger", "export-inputs", "--inputs", inputs, "--out", tmp_path / "out")
    given = ("--windows", tmp_path / "out" / "windows.jsonl", "--facts", tmp_path / "out" / "facts.jsonl")
    assert replayed(tmp_path, "second", *given) == first
    rules.unlink()
    given = ("--inputs", inputs, "--team-rules", tmp_path / "out" / "team-rules.json")
    assert replayed(tmp_path, "third", *given) == first
    assert replayed(tmp_path, "fourth", "--inputs", inputs) != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- source: nowhere\n", "teams.yaml: field `rules.0.source`"),
        ("- source: namespace\n  match: '('\n", "teams.yaml: field `rules.0.match`"),
        ("a: [", "teams.yaml, line 1: is no YAML"),
        ("3", "teams.yaml: must be a mapping"),
    ],
)
def test_bad_team_rules(tmp_path, inputs, text, message):
    rules = tmp_path / "teams.yaml"
    rules.write_text(text)
    result = run("replay", "--inputs", inputs, "--ledger", tmp_path / "l", "--team-rules", rules)
    assert result.exit_code == 1, result.output
    assert message in result.stderr


def spoil(path, number, change):
    lines = path.read_text().splitlines()
    lines[number] = change(lines[number])
    path.write_text("\n".join(lines) + "\n")


def without(name):
    return lambda line: json.dumps({key: value for key, value in json.loads(line).items() if key != name})


def setting(**values):
    return lambda line: json.dumps(json.loads(line) | values)


@pytest.mark.parametrize(
    ("file", "change", "field"),
    [
        ("windows", lambda line: line[:-5], "not a usage record"),
        ("windows", lambda line: line.replace('"seq"', '"sequel"'), "sequel"),
        ("windows", without("journal_id"), "`journal_id`"),
        ("windows", without("node"), "`node`"),
        ("windows", setting(window_ns="0"), "`window_ns`"),
        ("windows", setting(window_start_unix_ns="1793610000000000001"), "`window_start_unix_ns`"),
        ("windows", setting(seq="-1"), "seq"),
        ("windows", lambda _: "3", "not a usage record"),
        ("facts", lambda line: line[:-5], "not JSON"),
        ("facts", without("uid"), "`uid`"),
        ("facts", setting(kind="dragon"), "`kind`"),
        ("facts", setting(valid_from="yesterday"), "yesterday"),
        ("facts", setting(hours="2026-11-02T09:30:00Z"), "`hours`"),
        ("facts", setting(hours=["2026-11-02T09:30:00Z"]), "`hours`"),
        ("facts", setting(data={"name": 3, "other": 4}), "`data`"),
    ],
)
def test_bad_lines_are_named_and_nothing_is_written(tmp_path, exported, file, change, field):
    path = exported / f"{file}.jsonl"
    spoil(path, 2, change)
    result = run(
        *("replay", "--windows", exported / "windows.jsonl", "--facts", exported / "facts.jsonl"),
        *("--ledger", tmp_path / "ledger"),
    )
    assert result.exit_code == 1, result.output
    assert f"{path}, line 3" in result.stderr
    assert field in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "ledger").exists()


def test_bad_stored_inputs_leave_the_ledger_as_it_was(tmp_path, inputs):
    before = replayed(tmp_path, "ledger", "--inputs", inputs)
    last = max(inputs.rglob("facts.jsonl"))
    last.write_text("{}\n")
    result = run("replay", "--inputs", inputs, "--ledger", tmp_path / "ledger")
    assert result.exit_code == 1
    assert f"{last}, line 1: field `kind` is missing" in result.stderr
    assert files(tmp_path / "ledger") == before


@pytest.mark.parametrize(
    "arguments",
    [(), ("--inputs", "a", "--windows", __file__, "--facts", __file__), ("--windows", __file__), ("--facts", __file__)],
)
def test_wrong_combinations_of_options(arguments):
    assert run("replay", "--ledger", "l", *arguments).exit_code == 2


def test_no_inputs_there(tmp_path):
    result = run("replay", "--inputs", tmp_path, "--ledger", tmp_path / "l")
    assert (result.exit_code, "holds no stored inputs" in result.stderr) == (1, True)


def test_windows_of_several_clusters_need_a_name(tmp_path, exported):
    spoil(exported / "windows.jsonl", 0, setting(cluster="elsewhere"))
    facts = [without("cluster")(line) for line in (exported / "facts.jsonl").read_text().splitlines()]
    (exported / "facts.jsonl").write_text("\n".join(facts))
    given = ("--windows", exported / "windows.jsonl", "--facts", exported / "facts.jsonl", "--ledger", tmp_path / "l")
    assert "elsewhere, test" in run("replay", *given).stderr
    assert run("replay", *given, "--cluster", "test").exit_code == 0
