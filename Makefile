# Everything is installed into .venv in this checkout; nothing here needs root.
# PYTHON names the python3 to begin with, ARGS goes to the program that is run.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help bootstrap native demo test lint bench bench-powercut fuzz lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' Makefile

bootstrap: ## make or refresh .venv
	@$(PYTHON) -B -m tools.bootstrap

native: bootstrap
	@$(PYTHON) -B -m tools.bootstrap --native

demo: bootstrap ## real images, signed, served, installed, attacked: under 3 minutes
	@$(BIN)/sealift demo $(ARGS)

test: native ## every test and gate, as in CI
	@$(BIN)/python -m pytest $(ARGS)

lint: bootstrap ## only the gates: ruff, mypy, import contracts, house rules
	@$(BIN)/python -m pytest tests/test_house.py $(ARGS)

bench: native ## every benchmark, beside its peers
	@$(BIN)/python -m benchmarks $(ARGS)

bench-powercut: native ## kills and replays on a UEFI machine in QEMU; ARGS="--cuts 200"
	@$(BIN)/python -m tests.bench.powercut $(ARGS)

fuzz: native ## the fuzzers, one after the other; ARGS="--seconds 600"
	@$(BIN)/python -m tests.fuzz $(ARGS)

lock: bootstrap ## resolve anew: uv.lock and requirements.lock
	@$(BIN)/python -m tools.lock $(ARGS)

clean: ## remove .venv and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
