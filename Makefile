# Everything a contributor or a newcomer runs. What is installed goes into .venv/ and node_modules/ of the
# checkout; what only Debian has is named, and installed by scripts/debian-packages.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install install-tests demo band test unit conformance conformance-original docs picture fuzz fuzz-frames soak values check format lock clean

help:
	@echo "make demo     run the band app"
	@echo "make band     play in it from a terminal: make band WHO=eric"
	@echo "make test     install what tests need, and run them all"
	@echo "make unit     run the unit tests only"
	@echo "make conformance  run the cases of RFC 6455, and write their verdicts anew"
	@echo "make check    check format, lint, types and import rules"
	@echo "make docs     write the pages of the error codes anew"
	@echo "make fuzz     compare what subscribers receive with what they may select, at random"
	@echo "make soak     keep a server in mixed traffic, and account for every message"
	@echo "make fuzz-frames  compare what we and others read in frames and request heads, at random"
	@echo "make values   compare values of every type with the JSON of Postgres, at random"
	@echo "make format   format the code"
	@echo "make lock     write requirements.lock anew"

install: .venv/installed examples/rockon/node_modules/.package-lock.json

.venv/installed: requirements.lock pyproject.toml
	@scripts/debian-packages venv
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

examples/rockon/node_modules/.package-lock.json: examples/rockon/package-lock.json
	cd examples/rockon && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@

install-tests: install tests/interop/node_modules/.package-lock.json tests/interop/.venv/installed
	@scripts/debian-packages tests

tests/interop/node_modules/.package-lock.json: tests/interop/package-lock.json
	cd tests/interop && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@

# The client under test brings its own versions of what we use too.
tests/interop/.venv/installed: tests/interop/requirements.lock
	$(PYTHON) -m venv tests/interop/.venv
	tests/interop/.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  -r tests/interop/requirements.lock
	@touch $@

demo: install
	@$(BIN)/python examples/rockon/demo.py

# Beside `make demo`.
WHO ?= mike
band: .venv/installed
	@$(BIN)/python -m examples.rockon.terminal $(WHO)

# The unit tests share nothing, and are dealt out; the others share a cluster, ports and browsers.
UNIT := $(BIN)/pytest -n auto --maxprocesses 4 tests/unit

test: install-tests check
	$(UNIT)
	$(BIN)/pytest tests/conformance tests/integration tests/interop tests/e2e tests/soak

unit: install
	$(UNIT)

# The WebSocket layer against RFC 6455: writes the tables of docs/conformance.md.
conformance: install
	$(BIN)/python -m tests.conformance

# The same cases by the hand of those who wrote them; their package is Python 2, and is translated.
conformance-original: install
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$$folder" \
	    --require-hashes -r tests/conformance/original.txt && \
	  $(BIN)/python -m tests.conformance.original "$$folder"

# What is written from the code: a page for each error code.
docs: install
	$(BIN)/python scripts/error-pages

# The picture in the README, taken by the end-to-end test.
picture: install-tests
	BACKBEAT_PICTURE=docs/band-app.png $(BIN)/pytest tests/e2e/test_band_app.py -k worth_showing

# Row level security against a plain SELECT, at random: `make fuzz CASES=10000000`.
CASES ?= 1000000
fuzz: install
	$(BIN)/python -m tests.differential --cases $(CASES)

# A server in mixed traffic, with the books kept about every message: `make soak SECONDS=3600 SEED=7`.
SECONDS ?= 600
soak: SEED =
soak: install
	$(BIN)/python -m tests.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

# Frames and request heads against other parsers, at random: `make fuzz-frames CASES=10000000`.
fuzz-frames: install
	$(BIN)/python -m tests.fuzz --cases $(CASES)

# Values of every type against the JSON of Postgres, at random: `make values CASES=10000 SEED=7`.
SEED ?= 1
values: CASES = 1000
values: install
	BACKBEAT_CASES=$(CASES) BACKBEAT_SEED=$(SEED) $(BIN)/pytest --timeout=0 tests/integration/postgres/test_values.py

check: install
	$(BIN)/ruff format --check . scripts/error-pages
	$(BIN)/ruff check . scripts/error-pages
	$(BIN)/mypy
	$(BIN)/mypy scripts/error-pages
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o requirements.lock
	$(BIN)/uv pip compile tests/interop/requirements.in --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet -o tests/interop/requirements.lock

clean:
	rm -rf .venv examples/rockon/node_modules tests/interop/node_modules tests/interop/.venv .backbeat build dist
