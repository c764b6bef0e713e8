"""What to do about waste: advice for a workload, and a plan that drains and releases nodes."""
