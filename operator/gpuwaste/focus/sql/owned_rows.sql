-- The ledger's GPU rows that can carry cost: their node, prices and receiver, and the amounts that methods need.
-- Table: ledger. Parameters: grain ('hour' or 'day'), grouping ('namespace', 'workload' or 'team').
-- A price that is not known is the next one known: list, contracted and effective stand in for each other, and
-- what no invoice says is billed as it is effective.
CREATE TEMP TABLE owned_rows AS
SELECT
    hour,
    date_trunc($grain, hour) AS period,
    cluster,
    node_uid,
    gpu_model,
    row_kind = 'unprovisioned' AS unprovisioned,
    coalesce(list_unit_cost, contracted_unit_cost, effective_unit_cost) AS list_unit_cost,
    coalesce(contracted_unit_cost, list_unit_cost, effective_unit_cost) AS contracted_unit_cost,
    coalesce(billed_unit_cost, effective_unit_cost, contracted_unit_cost, list_unit_cost) AS billed_unit_cost,
    coalesce(effective_unit_cost, contracted_unit_cost, list_unit_cost) AS effective_unit_cost,
    coalesce(currency, '') AS currency,
    coalesce(price_source, '') AS price_source,
    coalesce(price_date, '') AS price_date,
    node,
    provider_id,
    pool,
    gpu_uuid,
    row_kind,
    CASE WHEN $grouping = 'team' THEN '' ELSE namespace END AS namespace,
    CASE WHEN $grouping = 'workload' THEN workload_kind ELSE '' END AS workload_kind,
    CASE WHEN $grouping = 'workload' THEN workload_name ELSE '' END AS workload_name,
    CASE WHEN $grouping = 'team' THEN team ELSE '' END AS team_key,
    team,
    owned,
    held,
    CASE WHEN duty < held THEN duty WHEN duty IS NOT NULL THEN held END AS duty,
    effective,
    coalesce(borrowed, 0) AS borrowed,
    coalesce(lent, 0) AS lent,
    coalesce(unhealthy, 0) AS unhealthy,
    coalesce(stranded, 0) AS stranded,
    coalesce(unallocated, 0) AS unallocated,
    coalesce(unmeasured, 0) AS unmeasured,
    coalesce(starting, 0) AS starting,
    coalesce(idle, 0) AS idle,
    coalesce(underused, 0) AS underused
FROM ledger
WHERE resource = 'gpu' AND (owned > 0 OR row_kind = 'unattributed')
