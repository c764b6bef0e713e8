-- Every row with the position of the imputed charge that it is a part of.
-- Tables: owned_rows, charges.
CREATE TEMP VIEW charged_rows AS
SELECT
    charge, row_kind, cluster, namespace, workload_kind, workload_name, team_key, team,
    owned_rows.owned AS owned, held, duty, effective, borrowed, lent, unhealthy, stranded, unallocated, unmeasured, starting, idle, underused
FROM owned_rows
JOIN charges USING (
    period, cluster, node_uid, gpu_model, unprovisioned, list_unit_cost, contracted_unit_cost, billed_unit_cost,
    effective_unit_cost, currency, price_source, price_date
)
