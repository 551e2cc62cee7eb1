# Sightline. `make` prints the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: help
help:  ## Print the targets
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  \033[1m%-20s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/.installed: requirements/dev.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Sightline needs Python 3.11 or newer as python3." >&2; exit 1; }
	@[ -x $(BIN)/python ] || python3 -m venv $(VENV) || { rm -rf $(VENV); echo "python3 cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing the pinned Python packages into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: venv
venv: $(BIN)/.installed  ## Make the virtual environment with everything pinned

.PHONY: lock
lock: venv  ## Pin all Python packages anew, with hashes
	$(UV_COMPILE) --upgrade requirements/dev.in -o requirements/dev.txt
	$(UV_COMPILE) -c requirements/dev.txt requirements/native.in -o requirements/native.txt
	$(UV_COMPILE) -c requirements/dev.txt app/requirements.in -o app/requirements.txt
	$(UV_COMPILE) -c requirements/dev.txt loadtest/requirements.in -o loadtest/requirements.txt

.PHONY: dashboards
dashboards: venv  ## Write grafana/dashboards/*.json from grafana/src
	$(BIN)/python -m grafana.src

.PHONY: dashboards-check
dashboards-check: venv  ## Check that the committed dashboards are the generated ones
	$(BIN)/python -m grafana.src --check
