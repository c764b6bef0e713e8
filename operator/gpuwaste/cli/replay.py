"""`gpuwaste replay`: compute the ledger again from stored inputs, or from two files."""

from __future__ import annotations

import tempfile
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gpuwaste.ledger.hour import HourRules
    from gpuwaste.ledger.inputs import InputStore

__all__ = ["parse_team_rules", "replay", "rules_of"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def parse_team_rules(text: str | bytes, *, where: str) -> HourRules:
    """Rules of the ledger with team rules written as YAML or JSON: a list of rules, or `rules:` with one.

    Raises:
        InputError: names the file and the field.
    """
    from pydantic import ValidationError

    from gpuwaste.ledger.hour import HourRules
    from gpuwaste.settings.errors import SettingsError
    from gpuwaste.settings.problems import problems
    from gpuwaste.settings.teams import TeamHistory
    from gpuwaste.settings.yaml_files import parse_yaml

    raw = parse_yaml(text, where=where)
    try:
        return HourRules(teams=TeamHistory.model_validate({"rules": raw} if isinstance(raw, list) else raw or {}))
    except ValidationError as error:
        raise SettingsError(problems(error, TeamHistory), where=where) from None


def rules_of(inputs: InputStore, given: Path | None) -> HourRules:
    """The rules of a file, else those stored with the inputs, else none: a namespace is then a team."""
    if given is not None:
        return parse_team_rules(given.read_bytes(), where=str(given))
    from gpuwaste.ledger.inputs import team_rules_file

    name = team_rules_file(inputs.cluster)
    stored = inputs.store.read_or_none(name)
    return parse_team_rules(b"" if stored is None else stored, where=f"{inputs.store.root}/{name}")


@click.command()
@click.option("--inputs", metavar="URL", help="Stored inputs: the folder `inputs`, or the one that holds it.")
@click.option("--windows", type=_FILE, help="Usage windows as JSON lines, instead of --inputs.")
@click.option("--facts", type=_FILE, help="Facts as JSON lines, with --windows.")
@click.option("--ledger", required=True, metavar="URL", help="Where the ledger is written.")
@click.option("--cluster", help="With --windows: whose they are; with --inputs: this cluster alone.")
@click.option("--team-rules", type=_FILE, help="Team rules as YAML.  [default: those stored with the inputs]")
def replay(
    *,
    inputs: str | None,
    windows: Path | None,
    facts: Path | None,
    ledger: str,
    cluster: str | None,
    team_rules: Path | None,
) -> None:
    """Compute every hour of the ledger again from its inputs.

    The same inputs always give the same bytes. Nothing is written before all input has been checked. Team rules
    belong to the inputs: `team-rules.json` in the cluster's folder, or beside the facts.
    """
    files = windows is not None or facts is not None
    if (inputs is None) == (not files) or (files and (windows is None or facts is None)):
        raise click.UsageError("give either --inputs, or --windows together with --facts")
    with tempfile.TemporaryDirectory(prefix="gpuwaste-replay-") as folder:
        if windows is not None and facts is not None:
            stored = [_store_files(windows, facts, cluster, Path(folder) / "given")]
            from gpuwaste.ledger.inputs import TEAM_RULES_NAME

            beside = facts.with_name(TEAM_RULES_NAME)
            team_rules = team_rules or (beside if beside.is_file() else None)
        else:
            stored = _stored_inputs(str(inputs), cluster)
        ruled = [(inputs, rules_of(inputs, team_rules)) for inputs in stored]
        names = _compute(ruled, Path(folder) / "computed", ledger)
    click.echo(f"{len(names)} hours of the ledger written to {ledger}")


def _store_files(windows: Path, facts: Path, cluster: str | None, folder: Path) -> InputStore:
    """Check both files and store what they hold, as the operator would have."""
    from gpuwaste.cli.input_files import read_inputs
    from gpuwaste.ledger.inputs import InputStore
    from gpuwaste.ledger.store import open_store

    hours = read_inputs(windows, facts, cluster=cluster)
    stored = InputStore(open_store(str(folder)), hours[0].cluster)
    for hour in hours:
        if hour.windows.num_rows:
            stored.append_windows(hour.windows)
        stored.write_facts(hour.hour, hour.facts)
    return stored


def _stored_inputs(url: str, cluster: str | None) -> list[InputStore]:
    from gpuwaste.cli.stores import clusters_of, open_inputs
    from gpuwaste.ledger.inputs import InputStore

    store = open_inputs(url)
    return [InputStore(store, name) for name in clusters_of(store, "inputs", only=cluster)]


def _compute(ruled: list[tuple[InputStore, HourRules]], folder: Path, ledger: str) -> list[str]:
    """Compute all hours into a folder of their own first; the ledger changes only when every one has succeeded."""
    from gpuwaste.cli.stores import open_ledger
    from gpuwaste.ledger.catalog import find_hours, hour_file
    from gpuwaste.ledger.days import put_hours
    from gpuwaste.ledger.store import open_store
    from gpuwaste.ledger.write import update_hour

    target, computed = open_ledger(ledger, create=True), open_store(str(folder))
    names = []
    for inputs, rules in ruled:
        for hour in inputs.hours():
            built = update_hour(inputs, computed, hour, rules)
            names.append(hour_file(inputs.cluster, hour))
            for finding in built.findings if built else ():
                click.echo(f"{names[-1]}: {finding}", err=True)
    for cluster, places in find_hours(computed).items():
        for _, of_day in groupby(places.values(), key=lambda place: place.hour.date()):
            put_hours(target, cluster, {place.hour: computed.read_table(place.name) for place in of_day})
    return names
