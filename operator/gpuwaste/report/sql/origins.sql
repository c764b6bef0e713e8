-- Where the activity of what was held comes from; NULL is held time of which nothing is known.
SELECT
  CASE WHEN effective IS NULL THEN NULL ELSE origin END AS origin,
  SUM(CAST(held AS DECIMAL(19, 0))) AS held,
  SUM(CAST(held AS DECIMAL(19, 0)) * CAST(COALESCE(coverage_ppm, 0) AS DECIMAL(7, 0))) AS covered_ppm
FROM ledger
WHERE resource = 'gpu' AND row_kind = 'holder'
GROUP BY CASE WHEN effective IS NULL THEN NULL ELSE origin END
ORDER BY origin NULLS LAST
