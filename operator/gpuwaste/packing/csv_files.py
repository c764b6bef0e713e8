"""Reads the node, pod and price files of `gpuwaste pack`; every refusal names file, row and field."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import numpy as np
import yaml

from gpuwaste.model.errors import InputError
from gpuwaste.packing.csv_table import CsvTable
from gpuwaste.packing.instance import WHOLE_GPU_MILLI, Instance
from gpuwaste.packing.rule_files import with_rules

if TYPE_CHECKING:
    from pathlib import Path

    from gpuwaste.packing.instance import Bools, Ints

__all__ = ["read_instance"]

_NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
_POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")
_MOST_PRICE_PLACES = 12
_LARGEST = 2**53
_FRACTION_SCALE = 1_000_000


def read_instance(
    *, nodes: Path, pods: Path, prices: Path | None, rules: Path | None = None
) -> tuple[Instance, dict[str, Decimal]]:
    """Read the question of a packing.

    Args:
        nodes: CSV with `sn, cpu_milli, memory_mib, gpu, model`; other columns are ignored.
        pods: CSV with `name, cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec`.
        prices: YAML or JSON map of model to money per GPU-hour; without it every GPU costs 1.
        rules: scheduling rules, as `rule_files.with_rules` reads them; they may name other columns of both files.

    Returns:
        The instance, and the price of each model.

    Raises:
        InputError: a file cannot be read, or a row of it is wrong.
    """
    node_table = CsvTable(nodes, _NODE_COLUMNS, others=rules is not None)
    pod_table = CsvTable(pods, _POD_COLUMNS, others=rules is not None)
    node_gpus = node_table.whole("gpu")
    models, node_model = _models(node_table, node_gpus)
    price_of = _prices(prices, models)
    gpus = pod_table.whole("num_gpu")
    milli = _gpu_milli(pod_table, gpus)
    sets, pod_set = _model_sets(pod_table, models, known=set(price_of) if prices else set())
    cpu, memory = (_same_unit(pod_table, node_table, field) for field in ("cpu_milli", "memory_mib"))
    instance = Instance(
        pod_names=_names(pod_table, "name"),
        pod_cpu=cpu[0],
        pod_memory=memory[0],
        pod_gpus=gpus,
        pod_gpu_milli=milli,
        pod_model_set=pod_set,
        model_sets=sets,
        node_names=_names(node_table, "sn"),
        node_cpu=cpu[1],
        node_memory=memory[1],
        node_gpus=node_gpus,
        node_model=node_model,
        models=models,
        prices=tuple(price_of[model] for model in models),
    )
    if rules is not None:
        instance = with_rules(rules, instance, nodes=node_table, pods=pod_table)
    return instance, {model: price_of[model] for model in models if model}


def _same_unit(pods: CsvTable, nodes: CsvTable, field: str) -> tuple[Ints, Ints]:
    """Both as whole numbers; millionths if a fraction occurs, pods rounded up and nodes down."""
    of_pods, of_nodes = pods.numbers(field), nodes.numbers(field)
    if not ((of_pods % 1).any() or (of_nodes % 1).any()):
        return of_pods.astype(np.int64), of_nodes.astype(np.int64)
    for table, values in ((pods, of_pods), (nodes, of_nodes)):
        if len(values) and values.max() * _FRACTION_SCALE > _LARGEST:
            row = int(values.argmax())
            raise InputError("is too large beside fractions", where=table.where(row, field))
    return (
        np.ceil(np.round(of_pods * _FRACTION_SCALE, 3)).astype(np.int64),
        np.floor(np.round(of_nodes * _FRACTION_SCALE, 3)).astype(np.int64),
    )


def _names(table: CsvTable, field: str) -> list[str]:
    names: list[str] = table.text(field).to_pylist()
    if len(set(names)) == len(names) and "" not in names:
        return names
    seen: set[str] = set()
    for row, name in enumerate(names):
        if not name:
            raise InputError("is empty", where=table.where(row, field), fix="give every row a name")
        if name in seen:
            raise InputError(f"'{name}' stands twice", where=table.where(row, field), fix="names must differ")
        seen.add(name)
    return names


def _models(table: CsvTable, gpus: Ints) -> tuple[tuple[str, ...], Ints]:
    text = table.text("model")
    encoded = text.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    index = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if "" in names:
        wrong = (index == names.index("")) & (gpus > 0)
        if wrong.any():
            raise InputError(
                "is empty on a node with GPUs",
                where=table.where(int(wrong.argmax()), "model"),
                fix="name its GPU model",
            )
    return tuple(names), index


def _gpu_milli(table: CsvTable, gpus: Ints) -> Ints:
    milli = table.whole("gpu_milli", empty_as="0")
    wrong = (gpus == 1) & ((milli < 1) | (milli > WHOLE_GPU_MILLI))
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{milli[row]} is no share of one GPU", where=table.where(row, "gpu_milli"), fix="write 1 to 1000"
        )
    return np.where(gpus == 1, milli, np.where(gpus > 1, WHOLE_GPU_MILLI, 0)).astype(np.int64)


def _model_sets(table: CsvTable, models: tuple[str, ...], *, known: set[str]) -> tuple[Bools, Ints]:
    encoded = table.text("gpu_spec").dictionary_encode()
    index = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    sets = np.zeros((max(len(encoded.dictionary), 1), len(models)), dtype=np.bool_)
    for row, spec in enumerate(encoded.dictionary.to_pylist()):
        if not spec:
            sets[row] = True
            continue
        for name in (part.strip() for part in spec.split("|")):
            if name in models and name:
                sets[row, models.index(name)] = True
            elif name not in known:
                first = int((index == row).argmax())
                raise InputError(
                    f"'{name}' is a GPU model of no node",
                    where=table.where(first, "gpu_spec"),
                    fix=f"the nodes have {', '.join(sorted(filter(None, models)))}; leave the field empty for any",
                )
    return sets, index


def _prices(path: Path | None, models: tuple[str, ...]) -> dict[str, Decimal]:
    if path is None:
        return dict.fromkeys(models, Decimal(1))
    found = _price_map(path)
    priced = {model: _price(path, model, text) for model, text in found.items()}
    missing = sorted(model for model in models if model and model not in priced)
    if missing:
        raise InputError(
            f"has no price of {', '.join(missing)}", where=str(path), fix="every model of a node needs one"
        )
    # A node without GPU may name no model; it costs nothing.
    return {"": Decimal(0)} | priced if "" in models else priced


def _price_map(path: Path) -> dict[str, str]:
    """Model to the price as it is written; scalars stay text, so that no digit passes through binary."""
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - builds text only
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot be read ({reason})", where=str(path)) from error
    if not isinstance(loaded, dict) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in loaded.items()
    ):
        raise InputError(
            "is no map of model to price", where=str(path), fix="write one line a model, such as 'T4: 0.35'"
        )
    return loaded


def _price(path: Path, model: str, text: str) -> Decimal:
    where = f"{path}, field {model}"
    try:
        price = Decimal(text)
    except InvalidOperation:
        raise InputError(f"'{text}' is not a number", where=where, fix="write a price such as 0.35") from None
    if not price.is_finite():
        raise InputError(f"'{text}' is not a number", where=where, fix="write a price such as 0.35")
    if price < 0:
        raise InputError(f"{text} is negative", where=where, fix="a price is 0 or more")
    if -int(price.as_tuple().exponent) > _MOST_PRICE_PLACES:
        raise InputError(f"{text} has more than {_MOST_PRICE_PLACES} decimals", where=where)
    return price
