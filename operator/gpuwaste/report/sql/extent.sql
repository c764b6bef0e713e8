-- What the rows span.
SELECT
  MIN(hour) AS first_hour,
  MAX(hour) AS last_hour,
  COUNT(DISTINCT hour) AS hours,
  COUNT(DISTINCT CASE WHEN gpu_uuid <> '' THEN gpu_uuid END) AS gpus,
  COUNT(DISTINCT CASE WHEN node_uid <> '' THEN node_uid END) AS nodes,
  COUNT(DISTINCT CASE WHEN row_kind = 'holder' THEN pod_uid END) AS pods
FROM ledger
WHERE resource = 'gpu'
