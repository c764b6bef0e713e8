"""What agents and Prometheus hand in, turned into tables of usage windows."""
