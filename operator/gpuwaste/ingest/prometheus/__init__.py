"""Usage windows and facts from a store that speaks Prometheus' query API: dcgm-exporter and kube-state-metrics."""
