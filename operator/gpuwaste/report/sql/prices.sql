-- Which price of which source was used for how much owned time.
SELECT
  gpu_model,
  currency,
  effective_unit_cost AS unit_cost,
  price_source,
  price_date,
  SUM(CAST(owned AS DECIMAL(19, 0))) AS owned
FROM ledger
WHERE resource = 'gpu'
GROUP BY gpu_model, currency, effective_unit_cost, price_source, price_date
ORDER BY
  gpu_model,
  currency NULLS LAST,
  effective_unit_cost NULLS LAST,
  price_source NULLS LAST,
  price_date NULLS LAST
