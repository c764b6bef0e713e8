"""`gpuwaste team explain`: which team owns a pod's cost, and which rule says so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpuwaste.cli.output import Column, echo_table, output_option
from gpuwaste.cli.replay import parse_team_rules, rules_of

if TYPE_CHECKING:
    from datetime import datetime

    from gpuwaste.ledger.hour import HourRules
    from gpuwaste.ledger.inputs import InputStore
    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.model.facts import PodData

__all__ = ["team"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Pair(click.ParamType[tuple[str, str]]):
    """`key=value`."""

    name = "key=value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Cut it at the first `=`."""
        if isinstance(value, tuple):
            return value
        key, found, rest = str(value).partition("=")
        if not found or not key:
            self.fail(f"{value!r} must be written like team=search", param, ctx)
        return key, rest


@click.group()
def team() -> None:
    """Which team owns a workload's cost, and by which rule."""


@team.command("explain")
@click.option("--inputs", metavar="URL", help="Stored inputs: explain the pods of their newest hour.")
@click.option("--cluster", help="With --inputs that hold several clusters: which.")
@click.option("--team-rules", type=_FILE, help="Team rules as YAML.  [default: those stored with the inputs]")
@click.option("--namespace", help="The pod's namespace; with --inputs, the pods of it alone.")
@click.option("--pod", help="With --inputs: the pod of this name, rule by rule.")
@click.option("--label", "labels", multiple=True, type=_Pair(), help="A label of the pod; may be repeated.")
@click.option("--annotation", "annotations", multiple=True, type=_Pair(), help="An annotation of the pod.")
@click.option("--namespace-label", "namespace_labels", multiple=True, type=_Pair(), help="A label of the namespace.")
@click.option(
    "--namespace-annotation", "namespace_annotations", multiple=True, type=_Pair(), help="One of its annotations."
)
@output_option
def explain(
    *,
    inputs: str | None,
    cluster: str | None,
    team_rules: Path | None,
    namespace: str | None,
    pod: str | None,
    output: str,
    **given: tuple[tuple[str, str], ...],
) -> None:
    """Say which team rules decide, and why.

    The first rule that matches names the team; where none does, the namespace is the team. With --inputs each pod of
    the newest stored hour is shown with the rule that decided, or with --pod one pod with every rule up to that one.
    Without, a pod is described by its --namespace, --label and so on: a way to try rules before they are used.
    """
    if inputs is None:
        if team_rules is None or namespace is None:
            raise click.UsageError("give --inputs, or --team-rules with the --namespace of a pod")
        rules = parse_team_rules(team_rules.read_bytes(), where=str(team_rules))
        steps = rules.teams.explain(
            namespace=namespace,
            namespace_labels=dict(given["namespace_labels"]),
            namespace_annotations=dict(given["namespace_annotations"]),
            pod_labels=dict(given["labels"]),
            pod_annotations=dict(given["annotations"]),
        )
        _echo_steps([step.model_dump() for step in steps], output)
        return
    if any(given.values()):
        raise click.UsageError("--label and its like describe a pod that is not stored; leave out --inputs")
    from gpuwaste.model.facts import PodData

    stored, hour = _newest(inputs, cluster)
    index, rules = _index(stored, hour), rules_of(stored, team_rules).at(hour)
    pods = [
        data
        for facts in index.pods.values()
        for data in [facts[-1].data]
        if isinstance(data, PodData)
        and (namespace is None or data.namespace == namespace)
        and (pod is None or data.name == pod)
    ]
    if not pods:
        from gpuwaste.model.errors import InputError

        what = f"pod {pod}" if pod else "pod"
        where = f" in namespace {namespace}" if namespace else ""
        raise InputError(f"holds no {what}{where} in the hour of {hour:%Y-%m-%dT%H:%MZ}", where=inputs)
    decided = [(data, _steps(data, index, rules)) for data in sorted(pods, key=lambda one: (one.namespace, one.name))]
    if pod is not None and len(decided) == 1:
        _echo_steps(decided[0][1], output)
    else:
        _echo_pods(decided, output)


def _newest(url: str, cluster: str | None) -> tuple[InputStore, datetime]:
    from gpuwaste.cli.stores import clusters_of, open_inputs
    from gpuwaste.ledger.inputs import InputStore
    from gpuwaste.model.errors import InputError

    store = open_inputs(url)
    clusters = clusters_of(store, "inputs", only=cluster)
    if len(clusters) > 1:
        raise InputError(f"holds the clusters {', '.join(clusters)}", where=url, fix="name one with --cluster")
    ((name, hours),) = clusters.items()
    return InputStore(store, name), hours[-1]


def _index(stored: InputStore, hour: datetime) -> FactIndex:
    from gpuwaste.ledger.join import FactIndex
    from gpuwaste.model.units import HOUR

    return FactIndex.build(stored.read_facts(hour), start=hour, end=hour + HOUR)


def _steps(pod: PodData, index: FactIndex, rules: HourRules) -> list[dict[str, Any]]:
    about = index.namespaces.get(pod.namespace)
    steps = rules.teams.explain(
        namespace=pod.namespace,
        namespace_labels=about.labels if about else {},
        namespace_annotations=about.annotations if about else {},
        pod_labels=pod.labels,
        pod_annotations=pod.annotations,
    )
    return [step.model_dump() for step in steps]


def _rule(number: int | None) -> str:
    return "default" if number is None else str(number)


def _echo_steps(steps: list[dict[str, Any]], output: str) -> None:
    columns = [
        Column("rule", "RULE", _rule, unknown="default", right=True),
        Column("place", "LOOKS AT"),
        Column("value", "FINDS", unknown="nothing"),
        Column("team", "TEAM", unknown=""),
        Column("why", "WHY"),
    ]
    echo_table(columns, steps, output)


def _echo_pods(decided: list[tuple[PodData, list[dict[str, Any]]]], output: str) -> None:
    rows = [{"namespace": pod.namespace, "pod": pod.name, **steps[-1]} for pod, steps in decided]
    columns = [
        Column("namespace", "NAMESPACE"),
        Column("pod", "POD"),
        Column("team", "TEAM"),
        Column("rule", "RULE", _rule, unknown="default", right=True),
        Column("place", "LOOKS AT"),
        Column("value", "FINDS"),
        Column("why", "WHY"),
    ]
    echo_table(columns, rows, output)
