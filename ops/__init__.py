"""What `make` runs: the stack in Docker or as ordinary processes, backups, incident drills, adopting pieces."""
