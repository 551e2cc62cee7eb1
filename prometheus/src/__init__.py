"""Generator of the rules and their unit tests: `make generate`."""
