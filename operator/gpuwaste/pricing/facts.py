"""Prices of GPU-hours on nodes, as facts that are stored beside the windows."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING

from gpuwaste.model.facts import Fact, GpuData, NodeData, PriceData
from gpuwaste.model.gpu_products import find_product
from gpuwaste.pricing.pricelist import PriceList, UnitCosts, builtin_prices

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["INSTANCE_TYPE_LABELS", "price_facts"]

INSTANCE_TYPE_LABELS = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
_GPU_COST_DECIMALS = Decimal(1).scaleb(-18)


def price_facts(facts: Iterable[Fact], *, own: PriceList | None) -> list[Fact]:
    """One price fact for each GPU product on each node, where any source knows a price.

    The sources in order: the user's own list by instance type, then by GPU product; the built-in list likewise.
    An instance's price is divided evenly among its GPUs (the fully loaded GPU-hour).

    Args:
        facts: nodes and GPUs; others are passed over.
        own: the user's price list.
    """
    facts = list(facts)
    gpus: dict[str, list[GpuData]] = {}
    for fact in facts:
        if isinstance(fact.data, GpuData):
            gpus.setdefault(fact.data.node, []).append(fact.data)
    priced = []
    for fact in facts:
        if isinstance(fact.data, NodeData):
            priced += _node_prices(fact, fact.data, gpus.get(fact.data.name, []), own)
    return sorted(priced, key=lambda price: price.key)


def _node_prices(fact: Fact, node: NodeData, gpus: list[GpuData], own: PriceList | None) -> list[Fact]:
    products = {gpu.product or gpu.model for gpu in gpus} | {_labelled_product(node)}
    count = len(gpus) or int(node.labels.get("nvidia.com/gpu.count", "0") or 0) or sum(node.gpus.values())
    instance_type = next((node.labels[key] for key in INSTANCE_TYPE_LABELS if node.labels.get(key)), "")
    found = []
    for product_name in sorted(products - {""}):
        data = _price(fact.uid, product_name, instance_type, count, own)
        if data is not None:
            found.append(
                Fact(
                    kind="price",
                    uid=f"{fact.uid}/{product_name}",
                    valid_from=fact.valid_from,
                    valid_to=fact.valid_to,
                    data=data,
                )
            )
    return found


def _labelled_product(node: NodeData) -> str:
    label = node.labels.get("nvidia.com/gpu.product", "")
    product = find_product(label) if label else None
    return product.name if product else label


def _price(node_uid: str, product: str, instance_type: str, gpus: int, own: PriceList | None) -> PriceData | None:
    for prices, source in ((own, "PriceList"), (builtin_prices(), "BuiltIn")):
        if prices is None:
            continue
        whole = prices.instance_types.get(instance_type)
        one = prices.gpus.get(product)
        if whole is not None and gpus:
            return _data(node_uid=node_uid, product=product, costs=whole, gpus=gpus, prices=prices, source=source)
        if one is not None:
            return _data(node_uid=node_uid, product=product, costs=one, gpus=1, prices=prices, source=source)
    return None


def _data(*, node_uid: str, product: str, costs: UnitCosts, gpus: int, prices: PriceList, source: str) -> PriceData:
    def share(cost: Decimal | None) -> str:
        whole = costs.list if cost is None else cost
        return f"{(whole / gpus).quantize(_GPU_COST_DECIMALS, ROUND_HALF_EVEN).normalize():f}"

    return PriceData(
        node_uid=node_uid,
        product=product,
        currency=prices.currency,
        source=source,
        date=prices.date.isoformat(),
        list_unit_cost=share(costs.list),
        contracted_unit_cost=share(costs.contracted),
        billed_unit_cost=share(costs.billed),
        effective_unit_cost=share(costs.effective),
    )
