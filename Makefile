# semel. `make demo` and `make test` set up what they need; a second run does not set up again.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.setup-done
ORDERS ?=
PYTHONS ?= 3.11 3.12 3.13
PYTHONS_MIN ?= $(words $(PYTHONS))

# Another active environment, or a path of its own, must not leak into ours.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

.PHONY: help setup demo test lint types soak mutants test-pythons bench bench-peers conformance proof

help:
	@echo "make demo | test | bench      the comparison, the whole test suite, the benchmark"
	@echo "make lint | types             ruff; mypy and pyright (both are in make test)"
	@echo "make mutants | soak           tests that break a rule on purpose; tests that take minutes"
	@echo "make test-pythons             kernel and body loop under Python $(PYTHONS)"

$(READY): pyproject.toml constraints.txt scripts/setup
	@scripts/setup $(VENV) dev

setup: $(READY)
	@:

demo: $(READY)
	@$(PY) -m semel demo $(if $(ORDERS),--orders "$(ORDERS)")

test: $(READY)
	@$(PY) -m pytest

mutants: $(READY)
	@$(PY) -m pytest -m mutant

soak: $(READY)
	@$(PY) -m pytest -m soak --timeout=3600

lint: $(READY)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: $(READY)
	@$(PY) -m mypy
	@$(PY) -m pyright

test-pythons:
	@PYTHONS="$(PYTHONS)" PYTHONS_MIN="$(PYTHONS_MIN)" scripts/test-pythons

bench: $(READY)
	@$(PY) -m benchmarks.replay
	@$(PY) -m benchmarks

bench-peers:
	@echo "bench-peers: this version is measured against its own floor, with 'make bench'; no peer is measured here" >&2
	@exit 1

conformance:
	@echo "conformance: this version runs in process and has no AWS wire API to judge; its contracts are checked by 'make test'" >&2
	@exit 1

proof:
	@echo "proof: this version has no formal model; the journal's rules are checked by crash exploration, in 'make test' and 'make soak'" >&2
	@exit 1
