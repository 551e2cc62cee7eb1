"""Take pieces of the project home: `make adopt TARGET=../my-service` (docs/adopt.md tells the rest)."""
