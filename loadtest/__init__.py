"""Load tests: people who sign up, browse, write and chat; load shapes; a verdict; exact numbers for Prometheus."""
