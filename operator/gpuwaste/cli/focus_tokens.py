"""`gpuwaste focus tokens`: an LLM gateway's spend as FOCUS rows, in one file with the GPUs' if asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gpuwaste.model.errors import InputError

if TYPE_CHECKING:
    from gpuwaste.focus.columns import Version
    from gpuwaste.focus.options import Grain

__all__ = ["tokens_command"]

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="tokens")
@click.option(
    "--usage",
    required=True,
    multiple=True,
    type=_FILE,
    help="Calls as the gateway counted them: .parquet, .csv or .jsonl. Can be given again.",
)
@click.option("--prices", required=True, type=_FILE, help="YAML file of providers, models and prices of tokens.")
@click.option(
    "--with", "beside", type=_FILE, help="A FOCUS Parquet file whose rows come first, such as that of the GPUs."
)
@click.option("--grain", type=click.Choice(["hour", "day"]), default="hour", show_default=True, help="Time of one row.")
@click.option(
    "--version", "version", type=click.Choice(["1.3", "1.4"]), default="1.3", show_default=True, help="FOCUS version."
)
@click.option("--out", required=True, type=_FILE, help="A .parquet or .csv file.")
def tokens_command(
    *, usage: tuple[Path, ...], prices: Path, beside: Path | None, grain: Grain, version: Version, out: Path
) -> None:
    """Write what teams spend on tokens of language models as FOCUS rows.

    No prompt, answer, key or user is read. A route to an endpoint in the cluster makes no row: its cost is that of the
    GPUs. Where the rows of a provider already stand in the file given by --with, its calls make no rows either, and
    divide those rows among the teams.
    """
    from gpuwaste.focus.token_export import export_tokens
    from gpuwaste.focus.token_prices import load_token_prices

    if beside is not None and beside.resolve() == out.resolve():
        raise InputError("is both read and written", where=str(out), fix="give --out another name")
    summary = export_tokens(usage, load_token_prices(prices), beside, out, grain=grain, version=version)
    for finding in summary.findings:
        click.echo(str(finding), err=True)
    click.echo(f"{out}\n{summary.rows} rows of tokens, {summary.divided} rows of a bill divided, {summary.kept} kept")
