-- The parts of each charge: what every receiver held of it, and what nobody held, by kind.
-- Table: owned_rows. `charge` is the position of the charge in the answer of charges.sql.
WITH parts AS (
    SELECT
        *,
        CASE
            WHEN row_kind = 'unprovisioned' THEN 'Unprovisioned'
            WHEN namespace = '' AND team_key = '' THEN 'Unidentified'
            ELSE ''
        END AS reason,
        owned AS weight
    FROM owned_rows WHERE row_kind <> 'free'
    UNION ALL
    SELECT *, 'Unhealthy', unhealthy FROM owned_rows WHERE row_kind = 'free' AND unhealthy > 0
    UNION ALL
    SELECT *, 'Stranded', stranded FROM owned_rows WHERE row_kind = 'free' AND stranded > 0
    UNION ALL
    SELECT *, 'Unallocated', unallocated FROM owned_rows WHERE row_kind = 'free' AND unallocated > 0
    UNION ALL
    SELECT *, 'Lent', lent FROM owned_rows WHERE row_kind = 'free' AND lent > 0
),
grouped AS (
    SELECT
        period, cluster, node_uid, gpu_model, unprovisioned, list_unit_cost, contracted_unit_cost, billed_unit_cost,
        effective_unit_cost, currency, price_source, price_date, reason, namespace, workload_kind, workload_name,
        team_key,
        CASE WHEN min(team) = max(team) THEN max(team) ELSE '' END AS team,
        CAST(sum(weight) AS BIGINT) AS weight,
        CAST(coalesce(sum(held) FILTER (WHERE row_kind = 'holder'), 0) AS BIGINT) AS held,
        CAST(sum(duty) FILTER (WHERE row_kind = 'holder') AS BIGINT) AS duty,
        CAST(sum(effective) FILTER (WHERE row_kind = 'holder') AS BIGINT) AS effective,
        CAST(coalesce(sum(unmeasured) FILTER (WHERE row_kind = 'holder'), 0) AS BIGINT) AS unmeasured
    FROM parts
    WHERE effective_unit_cost IS NOT NULL
    GROUP BY
        period, cluster, node_uid, gpu_model, unprovisioned, list_unit_cost, contracted_unit_cost, billed_unit_cost,
        effective_unit_cost, currency, price_source, price_date, reason, namespace, workload_kind, workload_name,
        team_key
)
SELECT
    dense_rank() OVER (
        ORDER BY
            period, cluster, node_uid, gpu_model, unprovisioned, list_unit_cost, contracted_unit_cost,
            billed_unit_cost, effective_unit_cost, currency, price_source, price_date
    ) - 1 AS charge,
    cluster, reason, namespace, workload_kind, workload_name, team, weight, held, duty, effective, unmeasured
FROM grouped
ORDER BY charge, reason, namespace, workload_kind, workload_name, team_key
