-- Sums over the rows of the ledger by {keys}, apart for every price, so that money is exact:
-- an amount is unit_cost x (a sum in nanoseconds) / 3600000000000, and currencies never meet.
-- {keys} is a comma-separated list of columns of the ledger. Portable: DuckDB, Spark, Trino.
SELECT
  {keys},
  currency,
  effective_unit_cost AS unit_cost,
  SUM(CAST(owned AS DECIMAL(19, 0))) AS owned,
  SUM(CAST(held AS DECIMAL(19, 0))) AS held,
  SUM(CAST(duty AS DECIMAL(19, 0))) AS duty,
  SUM(CAST(effective AS DECIMAL(19, 0))) AS effective,
  SUM(CAST(effective_low AS DECIMAL(19, 0))) AS effective_low,
  SUM(CAST(effective_high AS DECIMAL(19, 0))) AS effective_high,
  SUM(CAST(borrowed AS DECIMAL(19, 0))) AS borrowed,
  SUM(CAST(lent AS DECIMAL(19, 0))) AS lent,
  SUM(CAST(unhealthy AS DECIMAL(19, 0))) AS unhealthy,
  SUM(CAST(stranded AS DECIMAL(19, 0))) AS stranded,
  SUM(CAST(unallocated AS DECIMAL(19, 0))) AS unallocated,
  SUM(CAST(unmeasured AS DECIMAL(19, 0))) AS unmeasured,
  SUM(CAST(starting AS DECIMAL(19, 0))) AS starting,
  SUM(CAST(idle AS DECIMAL(19, 0))) AS idle,
  SUM(CAST(underused AS DECIMAL(19, 0))) AS underused,
  SUM(CASE WHEN row_kind = 'unprovisioned' THEN CAST(owned AS DECIMAL(19, 0)) ELSE 0 END) AS unprovisioned,
  SUM(CAST(held AS DECIMAL(19, 0)) * CAST(COALESCE(coverage_ppm, 0) AS DECIMAL(7, 0))) AS covered_ppm,
  COUNT(*) AS ledger_rows
FROM ledger
WHERE resource = 'gpu'
GROUP BY {keys}, currency, effective_unit_cost
ORDER BY {keys}, currency NULLS LAST, effective_unit_cost NULLS LAST
