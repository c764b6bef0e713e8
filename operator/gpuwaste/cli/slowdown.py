"""`gpuwaste slowdown`: how likely two pods on one GPU slow each other down."""

from __future__ import annotations

import math
from pathlib import Path

import click

__all__ = ["slowdown"]

_COLUMNS = ("a_duty_pct", "a_dram_pct", "a_mem_gib", "b_duty_pct", "b_dram_pct", "b_mem_gib")
_MOST_PCT = 100.0


@click.command()
@click.option(
    "--pairs",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="CSV of pairs, figures of each side alone: "
    "a_duty_pct, a_dram_pct, a_mem_gib, b_duty_pct, b_dram_pct, b_mem_gib.",
)
@click.option("--memory-gib", type=float, default=80.0, show_default=True, help="Memory of the GPU; a hard limit.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Where the CSV goes.")
def slowdown(*, pairs: Path, memory_gib: float, out: Path) -> None:
    """Predict which pairs of pods can share a GPU by time-slicing.

    Adds to every row the probability that each side loses more than a tenth of its speed (a_p_slow, b_p_slow),
    and whether the pair may share without a trial (safe). No single counter tells more than a likelihood: a
    pair that is not safe is not known to be slow, it needs a trial.
    """
    import csv

    from gpuwaste.cli.files import atomic_text
    from gpuwaste.model.errors import InputError
    from gpuwaste.packing.csv_table import CsvTable
    from gpuwaste.packing.slowdown import Pairs, predict

    if not (math.isfinite(memory_gib) and memory_gib > 0):
        raise click.BadParameter(f"{memory_gib:g} is out of range", param_hint="--memory-gib")
    table = CsvTable(pairs, _COLUMNS)
    values = {field: table.numbers(field) for field in _COLUMNS}
    for field, column in values.items():
        over = column > _MOST_PCT
        if field.endswith("_pct") and over.any():
            row = int(over.argmax())
            raise InputError(f"{column[row]:g} is more than 100 %", where=table.where(row, field))
    answer = predict(
        Pairs(
            a_duty_pct=values["a_duty_pct"],
            a_dram_pct=values["a_dram_pct"],
            a_memory_gib=values["a_mem_gib"],
            b_duty_pct=values["b_duty_pct"],
            b_dram_pct=values["b_dram_pct"],
            b_memory_gib=values["b_mem_gib"],
        ),
        memory_gib=memory_gib,
    )
    with pairs.open(encoding="utf-8-sig", newline="") as source, atomic_text(out) as stream:
        rows = csv.reader(source)
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*next(rows), "a_p_slow", "b_p_slow", "safe"])
        figures = zip(answer.a_p_slow.tolist(), answer.b_p_slow.tolist(), answer.safe.tolist(), strict=True)
        for line, (a_slow, b_slow, safe) in zip(filter(None, rows), figures, strict=True):
            writer.writerow([*line, f"{a_slow:.4f}", f"{b_slow:.4f}", "true" if safe else "false"])
    click.echo(f"{int(answer.safe.sum())} of {table.rows} pairs are safe without a trial; written to {out}")
