-- The parts of each charge: the weight of every receiver, and of what nobody received, by kind.
-- Table: charged_rows. Parameter: basis ('held', 'effective' or 'larger').
-- Weights are nanoseconds of GPU. They add up to what is owned; on the basis 'larger' also to what holders lent,
-- because lent time is claimed twice: by who asked for it and by who used it.
WITH receivers AS (
    SELECT
        charge,
        cluster,
        CASE WHEN namespace = '' AND team_key = '' THEN 'Unidentified' ELSE '' END AS reason,
        namespace,
        workload_kind,
        workload_name,
        team_key,
        CASE WHEN min(team) = max(team) THEN max(team) ELSE '' END AS team,
        CAST(
            CASE $basis
                WHEN 'effective' THEN coalesce(sum(effective), 0)
                WHEN 'larger' THEN sum(owned) + sum(borrowed)
                ELSE sum(owned)
            END AS BIGINT
        ) AS weight,
        CAST(sum(held) AS BIGINT) AS held,
        CAST(sum(duty) AS BIGINT) AS duty,
        CAST(sum(effective) AS BIGINT) AS effective,
        CAST(sum(borrowed) AS BIGINT) AS borrowed,
        CAST(sum(unmeasured) AS BIGINT) AS unmeasured
    FROM charged_rows
    WHERE row_kind = 'holder'
    GROUP BY charge, cluster, namespace, workload_kind, workload_name, team_key
),
sums AS (
    SELECT
        charge,
        cluster,
        sum(CASE WHEN row_kind = 'free' OR $basis = 'effective' THEN unhealthy ELSE 0 END) AS unhealthy,
        sum(CASE WHEN row_kind = 'free' THEN stranded ELSE 0 END) AS stranded,
        sum(CASE WHEN row_kind = 'free' THEN unallocated ELSE 0 END) AS unallocated,
        sum(CASE WHEN row_kind = 'free' AND $basis = 'held' THEN lent ELSE 0 END) AS lent,
        sum(CASE WHEN row_kind = 'unprovisioned' THEN owned ELSE 0 END) AS unprovisioned,
        sum(CASE WHEN row_kind = 'unattributed' AND $basis <> 'held' THEN effective ELSE 0 END) AS unattributed,
        sum(CASE WHEN row_kind = 'holder' AND $basis = 'effective' THEN unmeasured ELSE 0 END) AS unmeasured,
        sum(CASE WHEN row_kind = 'holder' AND $basis = 'effective' THEN starting ELSE 0 END) AS starting,
        sum(CASE WHEN row_kind = 'holder' AND $basis = 'effective' THEN idle ELSE 0 END) AS idle,
        sum(CASE WHEN row_kind = 'holder' AND $basis = 'effective' THEN underused ELSE 0 END) AS underused
    FROM charged_rows
    GROUP BY charge, cluster
),
kinds AS (
    SELECT reason
    FROM (
        VALUES
            ('Idle'), ('Lent'), ('Starting'), ('Stranded'), ('Unallocated'), ('Unattributed'), ('Underused'),
            ('Unhealthy'), ('Unmeasured'), ('Unprovisioned')
    ) AS names (reason)
),
remainders AS (
    SELECT
        charge,
        cluster,
        reason,
        CAST(
            CASE reason
                WHEN 'Idle' THEN idle
                WHEN 'Lent' THEN lent
                WHEN 'Starting' THEN starting
                WHEN 'Stranded' THEN stranded
                WHEN 'Unallocated' THEN unallocated
                WHEN 'Unattributed' THEN unattributed
                WHEN 'Underused' THEN underused
                WHEN 'Unhealthy' THEN unhealthy
                WHEN 'Unmeasured' THEN unmeasured
                WHEN 'Unprovisioned' THEN unprovisioned
            END AS BIGINT
        ) AS weight
    FROM sums
    CROSS JOIN kinds
)
SELECT
    charge, cluster, reason, namespace, workload_kind, workload_name, team_key, team, weight, held, duty, effective,
    borrowed, unmeasured
FROM receivers
UNION ALL
SELECT charge, cluster, reason, '', '', '', '', '', weight, 0, 0, 0, 0, 0
FROM remainders
WHERE weight > 0
ORDER BY charge, reason, namespace, workload_kind, workload_name, team_key
