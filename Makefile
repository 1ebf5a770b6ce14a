# Everything a person does with this repository. `make help` lists it.
# `up` and `test` need Python 3.11+, make and a C++ compiler (or take one from a package); they make `.venv` by themselves.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help up test test-clients check docs lock lock-clients soak soak-shapes bench bench-quick bench-peers proto clean venv

# Extra arguments for the program behind a target: make test ARGS="tests/unit -x", make up ARGS="--port 6080".
ARGS ?=
# Test processes side by side; each has a broker and servers of its own.
WORKERS ?= 2

PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv/bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS="..." is passed on: make test ARGS="tests/unit -x", make up ARGS="--port 6080"'

up: venv ## run freshet on 127.0.0.1:5080 (first time: makes .venv)
	@exec $(VENV)/freshet up $(ARGS)

test: venv ## run all tests, architecture included
	$(VENV)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-clients: venv ## every generation of the official clients, frameworks too, against a live server
	$(VENV)/python -m pytest -m "not soak" tests/clients $(ARGS)

check: venv ## style, types and import contracts only
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports

soak: venv ## the long runs: model, crash and bounds, many times as long
	$(VENV)/python -m pytest -m soak --timeout 14400 $(ARGS)

soak-shapes: venv ## a million rows, 100,000 namespaces, churn and more, each measured (ARGS="--scale 0.02" for a look)
	$(VENV)/python -m tests.bench.shapes $(ARGS)

bench: venv ## measure every figure against its target; appends to the results file
	$(VENV)/python -m tests.bench $(ARGS)

bench-quick: venv ## most of it with 20,000 rows in two or three minutes
	$(VENV)/python -m tests.bench --quick $(ARGS)

bench-peers: venv ## the same work on other vector databases, where they are on this machine
	$(VENV)/python -m tests.bench.peers $(ARGS)

docs: venv ## write the tables of README.md and the example settings from the code
	$(VENV)/python -m tests.docs_tables --write

proto: venv ## generate the protobuf classes again
	$(VENV)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. schemas/pb/*.proto query_api/grpc/*.proto

lock: venv ## resolve requirements.lock again (ARGS="--upgrade" for newer versions)
	.build/uv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command 'make lock' --group dev --group build --extra parquet --extra s3 $(ARGS) \
	  pyproject.toml -o requirements.lock

lock-clients: venv ## pin the clients of tests/clients again
	$(VENV)/python -m tests.clients.lock $(ARGS)

clean: ## remove .venv, caches and build leftovers (never data)
	rm -rf .venv .build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed, and none was found (tried python3, python3.11 to 3.14).' >&2; exit 1; }
	@$(PYTHON) -I compose/bootstrap.py
