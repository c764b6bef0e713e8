-- What cannot be exported because nobody knows its price.
-- Table: owned_rows.
SELECT cluster, node, gpu_model, min(period) AS first_period, max(period) AS last_period, CAST(sum(owned) AS BIGINT) AS owned
FROM owned_rows
WHERE effective_unit_cost IS NULL AND owned > 0
GROUP BY cluster, node, gpu_model
ORDER BY cluster, node, gpu_model
