# Sightline. `make` prints the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: help
help:  ## Print the targets
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  \033[1m%-20s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: python
python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Sightline needs Python 3.11 or newer as python3." >&2; exit 1; }

$(BIN)/.installed: requirements/dev.txt | python
	@[ -x $(BIN)/python ] || python3 -m venv $(VENV) || { rm -rf $(VENV); echo "python3 cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing the pinned Python packages into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: venv
venv: $(BIN)/.installed  ## Make the virtual environment with everything pinned

# Docker where an engine answers, else ordinary processes; MODE=docker or MODE=native decides by hand. Asked only where
# it matters, for an engine may take its time.
BY_MODE := up down status logs psql check-config reload clean backup restore grafana-password loadtest loadtest-ui
ifneq ($(filter $(BY_MODE),$(MAKECMDGOALS)),)
mode := $(or $(MODE),$(shell python3 -m native.mode))
endif

.PHONY: $(BY_MODE)
up: up-$(mode)  ## Start everything: in Docker or, where no engine answers, as ordinary processes
down: down-$(mode)  ## Stop everything; the data stay
status: status-$(mode)  ## Show the health of every part
logs: logs-$(mode)  ## Show the logs: SERVICE=app for one service, FOLLOW=1 to go on
psql: psql-$(mode)  ## Open psql on the stack's database, as its superuser; `make psql < FILE` runs a script
check-config: check-config-$(mode)  ## Check the configuration of Prometheus and Alertmanager with their own tools
reload: reload-$(mode)  ## Have Prometheus and Alertmanager read their edited configuration
clean: clean-$(mode)  ## Stop everything and remove its data: asks, CONFIRM=1 answers yes
backup: backup-$(mode)  ## Write an archive of all data into backups/
restore: restore-$(mode)  ## Put a backup's data in the place of the present ones, which are kept: FROM=backups/...; asks, CONFIRM=1
grafana-password: grafana-password-$(mode)  ## Make Grafana take the password in secrets/grafana_admin_password; delete the file for a new one

.PHONY: up-native down-native status-native logs-native psql-native check-config-native reload-native clean-native backup-native restore-native grafana-password-native
up-native: $(BIN)/.installed
	@echo "$(if $(MODE),Native mode,No Docker engine answers): the stack runs as ordinary processes on 127.0.0.1."
	@$(BIN)/python -m native up
down-native: $(BIN)/.installed
	@$(BIN)/python -m native down
status-native: $(BIN)/.installed
	@$(BIN)/python -m native status
logs-native: $(BIN)/.installed
	@$(BIN)/python -m native logs $(SERVICE) $(if $(FOLLOW),--follow)
psql-native: $(BIN)/.installed
	@$(BIN)/python -m native psql
check-config-native: $(BIN)/.installed
	@$(BIN)/python -m native.run promtool check config --syntax-only prometheus/prometheus.yml
	@$(BIN)/python -m native.run promtool check rules --lint=all --lint-fatal prometheus/rules/*.yml
	@$(BIN)/python -m native.run amtool check-config alertmanager/alertmanager.yml
reload-native: $(BIN)/.installed
	@$(BIN)/python -m native reload
clean-native: $(BIN)/.installed
	@$(BIN)/python -m native clean $(if $(CONFIRM),--yes)
backup-native: $(BIN)/.installed
	@$(BIN)/python -m native backup
restore-native: $(BIN)/.installed
	@$(BIN)/python -m native restore "$(FROM)" $(if $(CONFIRM),--yes)
grafana-password-native: $(BIN)/.installed
	@$(BIN)/python -m native grafana-password

.PHONY: up-docker down-docker status-docker logs-docker psql-docker check-config-docker reload-docker clean-docker backup-docker restore-docker grafana-password-docker secrets pull standins
up-docker: python
	@python3 -m stack up
down-docker: python
	@python3 -m stack down
status-docker: python
	@python3 -m stack status
logs-docker: python
	@python3 -m stack logs $(SERVICE) $(if $(FOLLOW),--follow)
psql-docker: python
	@python3 -m stack psql
check-config-docker: python
	@python3 -m stack check-config
reload-docker: python
	@python3 -m stack reload
clean-docker: python
	@python3 -m stack clean $(if $(CONFIRM),--yes)
backup-docker: python
	@python3 -m stack backup
restore-docker: python
	@python3 -m stack restore "$(FROM)" $(if $(CONFIRM),--yes)
grafana-password-docker: python
	@python3 -m stack grafana-password
secrets: python  ## Make the passwords that `docker compose up` needs (make up does it by itself)
	@python3 -m stack secrets
pull: python  ## Docker: fetch the images again, as tags are built anew with fixes of what they are built on; then make up
	@python3 -m stack pull
standins: python  ## Where no registry is in reach: build stand-ins for the upstream images from Debian packages
	@python3 -m stack standins

# SQLAlchemy 2.0 in a folder of its own: on PYTHONPATH it goes before the environment's 2.1.
$(VENV)/sqlalchemy-2.0/.installed: requirements/sqlalchemy-2.0.txt | $(BIN)/.installed
.venv-bench/sqlalchemy-2.0/.installed: requirements/sqlalchemy-2.0.txt | .venv-bench/.installed
%/sqlalchemy-2.0/.installed:
	@$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade --target $(@D) -r requirements/sqlalchemy-2.0.txt
	@touch $@

.PHONY: test
# More processes than cores, as the tests mostly wait for servers; some tests alone are faster without.
test: $(BIN)/.installed $(VENV)/sqlalchemy-2.0/.installed  ## Run all tests but those that need a Docker engine (TESTS=path for some, JOBS=6 at once)
	@$(BIN)/python -m pytest -m "not stack and not drill" -n $(or $(JOBS),$(if $(TESTS),0,6)) $(or $(TESTS),tests)

.PHONY: test-rules-mutation
test-rules-mutation: $(BIN)/.installed  ## Change the rules one thing at a time: do their unit tests notice? (RULES="Alert ..." for some)
	@$(BIN)/python -m tests.prometheus.mutation $(RULES)

.PHONY: soak-idle
soak-idle: $(BIN)/.installed  ## Run a stack of its own without traffic for 15 minutes: no alert, no NaN (MINUTES=n)
	@$(BIN)/python -m tests.prometheus.soak $(or $(MINUTES),15)

# In containers where the stack is in them: there Prometheus reaches Locust's numbers. A service elsewhere needs neither.
.PHONY: loadtest-native loadtest-ui-native loadtest-docker loadtest-ui-docker
loadtest: loadtest-$(if $(HOST),native,$(mode))  ## Put load on the running stack: USERS=20 DURATION=2m SHAPE=steady|ramp|spike|soak|step WORKERS=1; more: docs/loadtest.md
loadtest-ui: loadtest-ui-$(if $(HOST),native,$(mode))  ## The same from Locust's web page
loadtest-native: $(BIN)/.installed
	@$(BIN)/python -m loadtest
loadtest-ui-native: $(BIN)/.installed
	@$(BIN)/python -m loadtest --ui
loadtest-docker: python
	@python3 -m loadtest.docker
loadtest-ui-docker: python
	@python3 -m loadtest.docker --ui

.PHONY: incident
incident: $(BIN)/.installed  ## List the incident drills; NAME=... breaks something and follows the alerts
	@$(BIN)/python -m drills $(NAME)

.PHONY: adopt
adopt: python  ## Copy pieces into a service: TARGET=../my-service PIECES="middleware dashboards" PACKAGE=src/telemetry OVERWRITE=1
	@python3 -m adopt "$(or $(TARGET),$(error TARGET= names the folder of your service))" $(if $(PIECES),--pieces "$(PIECES)") $(if $(PACKAGE),--package "$(PACKAGE)") $(if $(OVERWRITE),--overwrite)

.PHONY: test-drills
test-drills: $(BIN)/.installed  ## Every alert by a real fault, from pending to resolved, on a stack of its own (root on Linux; 20 minutes)
	@$(BIN)/python -m pytest -m drill -s $(or $(TESTS),tests/drills)

.PHONY: test-load
test-load: $(BIN)/.installed  ## Five minutes of load: do Locust and Prometheus count the same? (SECONDS_EACH=300)
	@LOADTEST_SECONDS=$(or $(SECONDS_EACH),300) $(BIN)/python -m pytest -s tests/loadtest/test_exactness.py

.venv-bench/.installed: bench/requirements.txt | python
	@[ -x .venv-bench/bin/python ] || python3 -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bench/requirements.txt
	@touch $@

.PHONY: bench
bench: .venv-bench/.installed .venv-bench/sqlalchemy-2.0/.installed  ## Measure what the telemetry costs, beside others; writes docs/benchmarks.md (ONLY=HTTP: one section)
	@.venv-bench/bin/python -m bench $(ONLY)

.PHONY: fuzz
fuzz: $(BIN)/.installed  ## Fuzz the API with schemathesis and abuse the service, longer than `make test` (FOR=seconds)
	@FUZZ_SECONDS=$(or $(FOR),300) $(BIN)/python -m pytest tests/app/test_fuzz.py tests/app/test_abuse.py

.PHONY: test-stack
test-stack: $(BIN)/.installed  ## Test the containers; a private Docker engine serves where none answers (root on Debian)
	@python3 -m stack run $(BIN)/python -m pytest -m stack --durations=5 $(or $(TESTS),tests/stack)

.PHONY: lint
lint: $(BIN)/.installed check-config-native  ## Check style, types and every configuration file; FIX=1 mends style
	@$(BIN)/ruff check --quiet $(if $(FIX),--fix) .
	@$(BIN)/ruff format --quiet $(if $(FIX),,--check) .
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory generate CHECK=1
	@python3 -m stack check

.PHONY: lock
lock: venv  ## Pin all Python packages anew, with hashes
	$(UV_COMPILE) --upgrade requirements/dev.in -o requirements/dev.txt
	$(UV_COMPILE) -c requirements/dev.txt requirements/native.in -o requirements/native.txt
	$(UV_COMPILE) -c requirements/dev.txt app/requirements.in -o app/requirements.txt
	$(UV_COMPILE) -c requirements/dev.txt loadtest/requirements.in -o loadtest/requirements.txt
	$(UV_COMPILE) --no-deps --upgrade requirements/sqlalchemy-2.0.in -o requirements/sqlalchemy-2.0.txt
	@# Without the pins of OpenTelemetry: its packages demand each other's exact versions, and not all come out together.
	sed '/^[ #]/d; /^opentelemetry/d; s/ *\\$$//' requirements/dev.txt | $(UV_COMPILE) -c - bench/requirements.in -o bench/requirements.txt
	$(UV_COMPILE) -c requirements/dev.txt requirements/audit.in -o requirements/audit.txt

.PHONY: outdated
outdated: $(BIN)/.installed  ## Say which images and Python packages have newer versions (asks their registries)
	@$(BIN)/python -m pip --disable-pip-version-check list --outdated
	@echo && python3 -m stack outdated

.venv-audit/.installed: requirements/audit.txt
	@[ -x .venv-audit/bin/python ] || python3 -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit.txt
	@touch $@

.PHONY: audit sbom
audit: .venv-audit/.installed  ## Look for known vulnerabilities in the Python packages that are deployed (asks the index)
	@.venv-audit/bin/pip-audit --strict --disable-pip --require-hashes -r app/requirements.txt -r loadtest/requirements.txt \
		|| { echo "Not shown to be free of known vulnerabilities: the lines above say why." >&2; exit 1; }
sbom: .venv-audit/.installed  ## Write sbom.json, the Python packages of the service's image (CycloneDX)
	@.venv-audit/bin/cyclonedx-py requirements --output-reproducible -o sbom.json app/requirements.txt
	@echo sbom.json

.PHONY: generate
generate: venv  ## Write rules, their unit tests and dashboards from prometheus/slo.toml and their sources (CHECK=1 only compares)
	@$(BIN)/python -m prometheus.src $(if $(CHECK),--check)
	@$(BIN)/python -m grafana.src $(if $(CHECK),--check)

.PHONY: dashboards-types
dashboards-types: venv  ## Check the dashboards against the types that Grafana 12 and 13 publish (needs npm)
	@command -v npm >/dev/null || { echo "npm is missing; on Debian: apt-get install npm" >&2; exit 1; }
	@npm install --prefix grafana/types --no-package-lock --ignore-scripts --no-audit --no-fund --silent
	@$(BIN)/python -m grafana.src.types
