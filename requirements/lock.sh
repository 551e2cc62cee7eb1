#!/bin/bash
# Updates the pins of all Python packages, with hashes. What is deployed has the versions that the tests have.
set -euo pipefail
cd "$(dirname "$0")/.."

pin() {
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header "$@"
}

for name in dev celery starlette-0.27; do
    pin --upgrade requirements/$name.in -o requirements/$name.txt
done
pin --no-deps --upgrade requirements/sqlalchemy-2.0.in -o requirements/sqlalchemy-2.0.txt
for name in requirements/native app/requirements loadtest/requirements requirements/audit; do
    pin -c requirements/dev.txt $name.in -o $name.txt
done
# Without the pins of OpenTelemetry: its packages demand each other's exact versions, and not all come out together.
sed '/^[ #]/d; /^opentelemetry/d; s/ *\\$//' requirements/dev.txt | pin -c - bench/requirements.in -o bench/requirements.txt
