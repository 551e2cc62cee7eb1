# Sightline. `make` prints the targets; what the stack's own do is in ops/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
ifeq ($(wildcard ops/__main__.py requirements/dev.txt),)
$(error Run make in the folder of this Makefile, or with `make -C FOLDER`)
endif
export PIP_USER := 0
export PYTHONUTF8 := 1
unexport PYTHONHOME PYTHONIOENCODING PYTHONPATH PYTHONSAFEPATH PYTHONINSPECT PYTHONOPTIMIZE PYTHONWARNINGS
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_DRY_RUN PIP_CONSTRAINT
BIN := .venv/bin
VENVS := .venv .venv-bench .venv-audit

# Parameters count only on make's command line, not if the shell happens to export such a name.
FOR_TESTS := TESTS RULES MINUTES SECONDS_EACH FOR SEED ONLY TIMES FIX CHECK JOBS
quote = '$(subst ','\'',$1)'
GIVEN = $(foreach name,$(filter-out $(FOR_TESTS),$(.VARIABLES)),$(if $(filter command,$(origin $(name))),$(name)=$(call quote,$(value $(name)))))
$(foreach name,$(FOR_TESTS),$(if $(filter environment,$(origin $(name))),$(eval $(name) :=)))
# A virtual environment whose Python was upgraded or removed is recreated.
$(foreach venv,$(wildcard $(VENVS:%=%/bin/.installed)),$(shell $(dir $(venv))python -Ic 'import pip' 2> /dev/null || rm -f $(venv)))

##@ Run
up:  ## Start everything: in Docker or, where no engine answers, as ordinary processes (MODE=docker or MODE=native decides)
down:  ## Stop everything; the data are kept
restart:  ## Replace the service's replicas one after the other, with edited code and settings in Docker; no request fails
reload:  ## Reload the edited configuration of Prometheus and Alertmanager
clean:  ## Stop everything and remove its data; asks first (CONFIRM=1 skips the question)
secrets:  ## Create the passwords that `docker compose up` needs (make up does it by itself)
pull:  ## Pull the images again, since tags are rebuilt with fixes, or fetch the pinned releases without Docker; then make up
backup:  ## Write an archive of all data to backups/
restore:  ## Replace the data with a backup: FROM=backups/...; saves the current data first, and asks (CONFIRM=1)
grafana-password:  ## Set Grafana's admin password to the one in secrets/grafana_admin_password; delete the file for a new one
##@ Look
status:  ## Show the health of every server and scrape target
logs:  ## Show the logs: SERVICE=app for one service, FOLLOW=1 follows them
psql:  ## Open psql on the stack's database, as its superuser; `make psql < FILE` runs a script
check-config:  ## Check the configuration of Prometheus and Alertmanager (promtool, amtool)
##@ Load
loadtest:  ## Put load on the running stack: USERS=20 DURATION=2m SHAPE=steady|ramp|spike|soak|step WORKERS=1 HOST=address MASTER=address; more: docs/loadtest.md
loadtest-worker:  ## Join a load test that another machine coordinates: MASTER=192.0.2.10 WORKERS=2; docs/loadtest.md
loadtest-ui:  ## Run a load test from Locust's web page
##@ Incidents
incident:  ## List the incident drills; NAME=... runs one and follows its alerts
##@ Adopt
kubernetes:  ## Write rules, monitors and dashboards for the Prometheus Operator: OUT=dir SERVICE=my-service NAMESPACE=production; docs/kubernetes.md
adopt:  ## Copy pieces into a service: TARGET=../my-service PIECES="middleware dashboards" PACKAGE=src/telemetry SERVICE=name OVERWRITE=1

OPS := up down restart reload clean secrets pull backup restore grafana-password status logs psql check-config loadtest loadtest-worker loadtest-ui incident adopt kubernetes
.PHONY: $(OPS)
$(OPS): export MAKECMDGOALS := $(MAKECMDGOALS)
$(OPS): python
	@python3 -m ops $@ $(GIVEN)

.PHONY: help python venv
help:
	@awk -F':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z][a-z-]*:.*## / { printf "  \033[1m%-20s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { echo "Sightline needs Python 3.11 or newer as python3." >&2; exit 1; }
venv: $(BIN)/.installed

.venv/bin/.installed: requirements/dev.txt
.venv-bench/bin/.installed: bench/requirements.txt
.venv-audit/bin/.installed: requirements/audit.txt
$(VENVS:%=%/bin/.installed): %/bin/.installed: | python
	@requirements/install.sh $* $(filter %.txt,$^)
# SQLAlchemy 2.0 in a folder of its own: on PYTHONPATH it goes before the environment's 2.1.
%/sqlalchemy-2.0/.installed: requirements/sqlalchemy-2.0.txt | %/bin/.installed
	@requirements/install.sh $* $< $(@D)
	@touch $@

##@ Develop
.PHONY: test check replay test-rules-mutation soak-idle fuzz chaos test-drills test-stack test-load bench standins
# More processes than cores, as the tests mostly wait for servers; single modules are faster without.
test: $(BIN)/.installed .venv/sqlalchemy-2.0/.installed  ## Run all tests except those that need a Docker engine (TESTS=path for some, JOBS=6 at once)
	@$(BIN)/python -m pytest -m "not stack and not drill and not chaos" -n $(or $(JOBS),$(if $(TESTS),0,6)) $(or $(TESTS),tests)
check: $(BIN)/.installed  ## List everything that alerts, panels, drills and documents lack, in about 30 seconds
	@$(BIN)/python -m pytest -q --tb=short -m check -n 2 $(or $(TESTS),tests/alertmanager tests/docs tests/grafana tests/ops/drills tests/prometheus)
# Hundreds of Python processes start in a run: they cache bytecode, even if the environment disables it.
test check: export PYTHONDONTWRITEBYTECODE :=
replay: $(BIN)/.installed  ## Replay incidents and healthy days against the alert rules: time to detect, notifications per fault, false alarms
	@$(BIN)/python -m tests.prometheus.replay
test-rules-mutation: $(BIN)/.installed  ## Mutation test: change the rules one thing at a time, count changes that no unit test notices (RULES="Alert ..." for some)
	@$(BIN)/python -m tests.prometheus.mutation $(RULES)
soak-idle: $(BIN)/.installed  ## Run a separate stack without traffic for 15 minutes: no alert, no NaN (MINUTES=n, LOAD=6: with users)
	@$(BIN)/python -m tests.prometheus.soak $(or $(MINUTES),15) $(or $(LOAD),0)
fuzz: $(BIN)/.installed  ## Fuzz the API with schemathesis and attack the service, longer than `make test` does (FOR=seconds)
	@FUZZ_SECONDS=$(or $(FOR),300) $(BIN)/python -m pytest tests/app/test_fuzz.py tests/app/abuse
test-drills: $(BIN)/.installed  ## Trigger every alert by a real fault, from pending to resolved, on a separate stack (root on Linux; 20 minutes)
	@$(BIN)/python -m pytest -m drill -s $(or $(TESTS),tests/ops/drills)
chaos: $(BIN)/.installed  ## Interrupt up, down, backup, restore, clean at random moments: nothing is lost (FOR=seconds, or TIMES=20 each; ONLY="up,down" SEED=n)
	@CHAOS_SECONDS=$(FOR) CHAOS_TIMES=$(TIMES) CHAOS_ONLY="$(ONLY)" CHAOS_SEED=$(SEED) $(BIN)/python -m pytest -m chaos -s $(or $(TESTS),tests/ops/test_chaos.py)
test-stack: $(BIN)/.installed  ## Test the containers; uses a private Docker engine if none answers (root on Debian)
	@python3 -m tests.rig run $(BIN)/python -m pytest -m stack --durations=5 $(or $(TESTS),tests/ops/docker)
test-load: $(BIN)/.installed  ## Compare the counts of Locust and Prometheus over five minutes of load (SECONDS_EACH=300)
	@LOADTEST_SECONDS=$(or $(SECONDS_EACH),300) $(BIN)/python -m pytest -s tests/loadtest/test_exactness.py
bench: .venv-bench/bin/.installed .venv-bench/sqlalchemy-2.0/.installed  ## Measure the overhead of the telemetry and of its peers; writes docs/benchmarks.md (ONLY=HTTP: one section)
	@.venv-bench/bin/python -m bench $(ONLY)
standins: python  ## Without access to a registry: build stand-ins for the upstream images from Debian packages
	@python3 -m tests.rig standins

.PHONY: lint lock outdated audit sbom generate dashboards-types
lint: $(BIN)/.installed  ## Check style, types and every configuration file; FIX=1 fixes style
	@$(BIN)/python -m ops check-files MODE=native
	@$(BIN)/ruff check --quiet $(if $(FIX),--fix) .
	@$(BIN)/ruff format --quiet $(if $(FIX),,--check) .
	@$(BIN)/python -m mypy
	@$(MAKE) --no-print-directory generate CHECK=1
	@python3 -m tests.rig check
generate: venv  ## Write rules, their unit tests and dashboards from prometheus/slo.toml and their sources (CHECK=1 only compares)
	@$(BIN)/python -m prometheus.src $(if $(CHECK),--check)
	@$(BIN)/python -m grafana.src $(if $(CHECK),--check)
dashboards-types: venv  ## Check the dashboards against the types that Grafana 12 and 13 publish (needs npm)
	@command -v npm > /dev/null || { echo "npm is missing; on Debian: apt-get install npm" >&2; exit 1; }
	@npm install --prefix grafana/types --no-package-lock --ignore-scripts --no-audit --no-fund --silent
	@$(BIN)/python -m grafana.src.types
lock: venv  ## Update the pins of all Python packages, with hashes
	@requirements/lock.sh
outdated: $(BIN)/.installed  ## List images and Python packages with newer versions (asks their registries)
	@$(BIN)/python -m pip --disable-pip-version-check list --outdated
	@echo && python3 -m ops outdated
audit: .venv-audit/bin/.installed  ## Check the deployed Python packages for known vulnerabilities (asks the index)
	@.venv-audit/bin/python -m pip_audit --strict --disable-pip --require-hashes -r app/requirements.txt -r loadtest/requirements.txt \
		|| { echo "Could not be shown to be free of known vulnerabilities: see the lines above." >&2; exit 1; }
sbom: .venv-audit/bin/.installed  ## Write sbom.json, the Python packages of the service's image (CycloneDX)
	@.venv-audit/bin/python -m cyclonedx_py requirements --output-reproducible -o sbom.json app/requirements.txt
	@echo sbom.json
