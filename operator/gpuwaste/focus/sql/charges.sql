-- The charges: one a node, GPU model and price in one period.
-- Table: owned_rows.
SELECT
    period,
    cluster,
    node_uid,
    gpu_model,
    unprovisioned,
    list_unit_cost,
    contracted_unit_cost,
    billed_unit_cost,
    effective_unit_cost,
    currency,
    price_source,
    price_date,
    max(node) AS node,
    max(provider_id) AS provider_id,
    max(pool) AS pool,
    CAST(count(DISTINCT gpu_uuid) AS BIGINT) AS gpus,
    CAST(sum(owned) AS BIGINT) AS owned
FROM owned_rows
WHERE effective_unit_cost IS NOT NULL
GROUP BY
    period, cluster, node_uid, gpu_model, unprovisioned, list_unit_cost, contracted_unit_cost, billed_unit_cost,
    effective_unit_cost, currency, price_source, price_date
ORDER BY
    period, cluster, node_uid, gpu_model, unprovisioned, list_unit_cost, contracted_unit_cost, billed_unit_cost,
    effective_unit_cost, currency, price_source, price_date
