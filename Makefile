# demo, test, test-slow, check: each makes .venv by itself. PYTHON names the interpreter to build it with.
PYTHON ?= python3.11
BIN := .venv/bin
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test test-slow test-faults test-newcomer check format install clean bench-learning bench-federation
install: .venv/installed
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/gmmas demo

# Three, so that two cores have something to do while a test waits.
test: install
	$(BIN)/pytest -m "not slow" --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-slow: install
	$(BIN)/pytest -m "slow and not faults"

# An hour or more: kills, cuts and fills whatever a run of real processes stands on, and writes benchmarks/results/faults.md.
test-faults: install
	GMMAS_FAULTS_TABLE=benchmarks/results/faults $(BIN)/pytest -m faults

# As root, minutes: three machines made of namespaces follow the documentation, from installing the software to leaving again.
test-newcomer: install
	GMMAS_NEWCOMER=install $(BIN)/pytest tests/newcomer

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# About ten hours on two cores without bf16; interrupted, it goes on where it was. While choosing, leave --final out: the test hospital is for the final table only.
bench-learning: install
	$(BIN)/python -m benchmarks.learning --final

# An hour or two: what a round costs beside the training, here, in plain Flower and in NVFlare (installed into runs/ at the first use).
bench-federation: install
	$(BIN)/python -m benchmarks.federation --commit

clean:
	rm -rf .venv runs build *.egg-info
