# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
# A process for each core; where it runs out of tests it takes the other's last ones.
PARALLEL := -n logical --maxprocesses 4 --dist worksteal

.PHONY: demo test slow lint types imports check clean

demo: $(READY)
	rm -rf demo
	$(BIN)/invlearn compare colored-digits --recipe demo --objectives erm,erm-grayscale,irmv1,vrex,mmrex,meta-irm --out demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy
	$(BIN)/mypy --strict examples/typed.py

imports: $(READY)
	$(BIN)/lint-imports

check: test lint types imports

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "Expected Python 3.11 or newer, got %d.%d. Run: make PYTHON=/path/to/python3.11" % v[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo
