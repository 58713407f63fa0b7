# One environment in .venv, made once; `make demo` and `make test` need nothing else.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-long endure mutants lint format serve bench clean

.venv/.runs: pyproject.toml constraints.txt
	@echo "installing into .venv (about two minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(PIP) -e .
	@touch $@

.venv/.develops: .venv/.runs
	@echo "installing the tools for tests and checks"
	@$(PIP) -e '.[dev]'
	@if command -v npm >/dev/null; then npm ci --prefix tests/browser --silent --no-audit --no-fund; \
	  else echo "npm is not there: the tests of pages by axe-core are skipped"; fi
	@touch $@

# A phantom brain, mapped end to end. Run again: everything is current.
demo: .venv/.runs
	@test -f work/phantom/manifest.csv || $(BIN)/python -m flows phantom work/phantom --target layers --no-pictures --sections 8 \
	  --pixel-size-um 25
	@$(BIN)/python -m flows map-brain --manifest-path work/phantom/manifest.csv --store-path work/store \
	  --probe.target layers

test: .venv/.develops
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest -m "alone and not long" -n 1 tests/flows tests/tasks

# Whole brains mapped again and again, encoders pretrained, a person waited for: what takes long. CI runs it too.
test-long: .venv/.develops
	$(BIN)/python -m pytest -m "long and not alone" tests
	$(BIN)/python -m pytest -m "long and alone" -n 1 tests/flows

# The crash, corruption and hostile suites in full; `make test` runs a sample of each.
endure: .venv/.develops
	CYTOARCH_FULL=1 $(BIN)/python -m pytest -m "not alone" tests/endurance tests/hostile

# Plants small faults one by one in a copy and says which the tests of a room miss; a seeded sample of every room.
# `make mutants ROOMS="steps measures" COUNT=100`
mutants: .venv/.develops
	$(BIN)/python -m tests.mutants $(ROOMS) $(if $(COUNT),--count $(COUNT))

lint: .venv/.develops
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.develops
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: .venv/.runs
	@$(BIN)/python deployments/serve.py

bench: .venv/.develops
	$(BIN)/python -m benchmarks

clean:
	rm -rf work .mypy_cache .pytest_cache .ruff_cache .hypothesis
