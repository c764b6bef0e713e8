"""Reads the node, pod and price files of `gpuwaste pack`; every refusal names file, row and field."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import yaml

from gpuwaste.model.errors import InputError
from gpuwaste.packing.instance import WHOLE_GPU_MILLI, Instance

if TYPE_CHECKING:
    from pathlib import Path

    from gpuwaste.packing.instance import Bools, Floats, Ints

__all__ = ["read_instance"]

_NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
_POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")
_MOST_PRICE_PLACES = 12
_LARGEST = 2**53
_FRACTION_SCALE = 1_000_000


def read_instance(*, nodes: Path, pods: Path, prices: Path | None) -> tuple[Instance, dict[str, Decimal]]:
    """Read the question of a packing.

    Args:
        nodes: CSV with `sn, cpu_milli, memory_mib, gpu, model`; other columns are ignored.
        pods: CSV with `name, cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec`.
        prices: YAML or JSON map of model to money per GPU-hour; without it every GPU costs 1.

    Returns:
        The instance, and the price of each model.

    Raises:
        InputError: a file cannot be read, or a row of it is wrong.
    """
    node_table, pod_table = _read(nodes, _NODE_COLUMNS), _read(pods, _POD_COLUMNS)
    node_gpus = _whole(nodes, node_table, "gpu")
    models, node_model = _models(nodes, node_table, node_gpus)
    price_of = _prices(prices, models)
    gpus = _whole(pods, pod_table, "num_gpu")
    milli = _gpu_milli(pods, pod_table, gpus)
    sets, pod_set = _model_sets(pods, pod_table, models, known=set(price_of) if prices else set())
    cpu, memory = (
        _same_unit(
            _sizes(pods, pod_table, field), _sizes(nodes, node_table, field), pods=pods, nodes=nodes, field=field
        )
        for field in ("cpu_milli", "memory_mib")
    )
    instance = Instance(
        pod_names=_names(pods, pod_table, "name"),
        pod_cpu=cpu[0],
        pod_memory=memory[0],
        pod_gpus=gpus,
        pod_gpu_milli=milli,
        pod_model_set=pod_set,
        model_sets=sets,
        node_names=_names(nodes, node_table, "sn"),
        node_cpu=cpu[1],
        node_memory=memory[1],
        node_gpus=node_gpus,
        node_model=node_model,
        models=models,
        prices=tuple(price_of[model] for model in models),
    )
    return instance, {model: price_of[model] for model in models if model}


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    try:
        with path.open("rb") as handle:
            header = handle.readline().decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
    present = [name.strip().strip('"') for name in header.split(",")]
    missing = [name for name in columns if name not in present]
    if missing:
        raise InputError(
            f"has no column {', '.join(missing)}", where=str(path), fix=f"its first line must name {','.join(columns)}"
        )
    twice = [name for name in columns if present.count(name) > 1]
    if twice:
        raise InputError(f"names column {twice[0]} twice", where=str(path), fix="keep one of them")
    try:
        return pv.read_csv(
            path,
            read_options=pv.ReadOptions(use_threads=False, column_names=present, skip_rows=1),
            convert_options=pv.ConvertOptions(
                column_types={name: pa.string() for name in columns},
                include_columns=list(columns),
                strings_can_be_null=False,
            ),
        ).combine_chunks()
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"is no well-formed CSV ({reason})", where=str(path)) from error


def _where(path: Path, row: int, field: str) -> str:
    return f"{path}, row {row + 1} (line {row + 2}), field {field}"


def _text(table: pa.Table, field: str) -> pa.Array:
    column = table[field]
    array = column.chunk(0) if column.num_chunks else pa.array([], pa.string())
    return pc.utf8_trim_whitespace(array)


def _numbers(path: Path, table: pa.Table, field: str, *, empty_as: str | None = None) -> Floats:
    """float64[rows]; refuses what is no finite number or negative."""
    text = _text(table, field)
    if empty_as is not None:
        text = pc.if_else(pc.equal(text, ""), empty_as, text)
    try:
        values: Floats = pc.cast(text, pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        row, value = next((i, v) for i, v in enumerate(text.to_pylist()) if not _is_number(v))
        raise InputError(
            f"'{value}' is not a number", where=_where(path, row, field), fix="write a number of 0 or more"
        ) from None
    wrong = ~np.isfinite(values) | (values < 0) | (values > _LARGEST)
    if wrong.any():
        row = int(wrong.argmax())
        value = text[row].as_py()
        what = "is negative" if values[row] < 0 else "is too large" if values[row] > _LARGEST else "is not a number"
        raise InputError(f"{value} {what}", where=_where(path, row, field), fix="write a number of 0 or more")
    return values


def _is_number(text: str) -> bool:
    try:
        pc.cast(pa.array([text]), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _whole(path: Path, table: pa.Table, field: str, *, empty_as: str | None = None) -> Ints:
    values = _numbers(path, table, field, empty_as=empty_as)
    wrong = values != np.floor(values)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"{table[field][row].as_py()} is not a whole number", where=_where(path, row, field))
    return values.astype(np.int64)


def _sizes(path: Path, table: pa.Table, field: str) -> Floats:
    return _numbers(path, table, field)


def _same_unit(of_pods: Floats, of_nodes: Floats, *, pods: Path, nodes: Path, field: str) -> tuple[Ints, Ints]:
    """Both as whole numbers; millionths if a fraction occurs, pods rounded up and nodes down."""
    if not ((of_pods % 1).any() or (of_nodes % 1).any()):
        return of_pods.astype(np.int64), of_nodes.astype(np.int64)
    for path, values in ((pods, of_pods), (nodes, of_nodes)):
        if len(values) and values.max() * _FRACTION_SCALE > _LARGEST:
            row = int(values.argmax())
            raise InputError("is too large beside fractions", where=_where(path, row, field))
    return (
        np.ceil(np.round(of_pods * _FRACTION_SCALE, 3)).astype(np.int64),
        np.floor(np.round(of_nodes * _FRACTION_SCALE, 3)).astype(np.int64),
    )


def _names(path: Path, table: pa.Table, field: str) -> list[str]:
    names: list[str] = _text(table, field).to_pylist()
    if len(set(names)) == len(names) and "" not in names:
        return names
    seen: set[str] = set()
    for row, name in enumerate(names):
        if not name:
            raise InputError("is empty", where=_where(path, row, field), fix="give every row a name")
        if name in seen:
            raise InputError(f"'{name}' stands twice", where=_where(path, row, field), fix="names must differ")
        seen.add(name)
    return names


def _models(path: Path, table: pa.Table, gpus: Ints) -> tuple[tuple[str, ...], Ints]:
    text = _text(table, "model")
    encoded = text.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    index = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if "" in names:
        wrong = (index == names.index("")) & (gpus > 0)
        if wrong.any():
            raise InputError(
                "is empty on a node with GPUs",
                where=_where(path, int(wrong.argmax()), "model"),
                fix="name its GPU model",
            )
    return tuple(names), index


def _gpu_milli(path: Path, table: pa.Table, gpus: Ints) -> Ints:
    milli = _whole(path, table, "gpu_milli", empty_as="0")
    wrong = (gpus == 1) & ((milli < 1) | (milli > WHOLE_GPU_MILLI))
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{milli[row]} is no share of one GPU", where=_where(path, row, "gpu_milli"), fix="write 1 to 1000"
        )
    return np.where(gpus == 1, milli, np.where(gpus > 1, WHOLE_GPU_MILLI, 0)).astype(np.int64)


def _model_sets(path: Path, table: pa.Table, models: tuple[str, ...], *, known: set[str]) -> tuple[Bools, Ints]:
    encoded = _text(table, "gpu_spec").dictionary_encode()
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
                    where=_where(path, first, "gpu_spec"),
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
