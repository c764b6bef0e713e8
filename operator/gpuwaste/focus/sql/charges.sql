-- The imputed charges: one a node, GPU model and price in one period.
-- Table: owned_rows.
CREATE TEMP TABLE charges AS
SELECT
    row_number() OVER (
        ORDER BY
            period, cluster, node_uid, gpu_model, unprovisioned, list_unit_cost, contracted_unit_cost,
            billed_unit_cost, effective_unit_cost, currency, price_source, price_date
    ) - 1 AS charge,
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
    count(DISTINCT gpu_uuid) AS gpus,
    CAST(sum(owned) AS BIGINT) AS owned,
    CAST(coalesce(sum(lent) FILTER (WHERE row_kind = 'holder'), 0) AS BIGINT) AS lent_by_holders
FROM owned_rows
WHERE effective_unit_cost IS NOT NULL
GROUP BY
    period, cluster, node_uid, gpu_model, unprovisioned, list_unit_cost, contracted_unit_cost, billed_unit_cost,
    effective_unit_cost, currency, price_source, price_date
HAVING sum(owned) > 0
