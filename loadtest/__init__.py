"""Load tests: simulated users, load shapes, thresholds and a verdict; exact counts for Prometheus."""
