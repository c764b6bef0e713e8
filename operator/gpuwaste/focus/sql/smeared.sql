-- The parts with some kinds of remainder given to the receivers in proportion to their weights, exactly.
-- Table: parts. Parameter: kinds, a list of reasons.
-- A charge without a receiver that weighs anything keeps its remainders. Quotas are floored and what is left goes,
-- nanosecond by nanosecond, to the largest remainders.
WITH totals AS (
    SELECT
        charge,
        coalesce(sum(weight) FILTER (WHERE reason = ''), 0) AS received,
        coalesce(sum(weight) FILTER (WHERE list_contains($kinds, reason)), 0) AS given
    FROM parts
    GROUP BY charge
),
quotas AS (
    SELECT
        parts.*,
        received,
        given,
        CASE WHEN reason = '' AND received > 0 THEN CAST(given AS HUGEINT) * weight // received ELSE 0 END AS quota,
        CASE WHEN reason = '' AND received > 0 THEN CAST(given AS HUGEINT) * weight % received ELSE -1 END AS rest
    FROM parts
    JOIN totals USING (charge)
),
ranked AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY charge ORDER BY rest DESC, namespace, workload_kind, workload_name, team_key
        ) AS place,
        sum(quota) OVER (PARTITION BY charge) AS placed
    FROM quotas
)
SELECT
    charge, cluster, reason, namespace, workload_kind, workload_name, team_key, team,
    CAST(weight + quota + CASE WHEN rest >= 0 AND place <= given - placed THEN 1 ELSE 0 END AS BIGINT) AS weight,
    held, duty, effective, borrowed, unmeasured,
    CAST(quota + CASE WHEN rest >= 0 AND place <= given - placed THEN 1 ELSE 0 END AS BIGINT) AS smeared
FROM ranked
WHERE received = 0 OR NOT list_contains($kinds, reason)
ORDER BY charge, reason, namespace, workload_kind, workload_name, team_key
