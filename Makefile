# Each target does all the set-up it needs; a fresh machine needs only Python 3.11+ and make.
# Reuse an environment with `make VENV=DIR ...`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-oldest lint soak docs dist clean

demo: $(VENV)/.core
	$(BIN)/headstart demo

test: $(VENV)/.test lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not soak"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# The oldest versions that pyproject.toml declares, in an environment of their own.
test-oldest: $(VENV)-oldest/.test
	OMP_NUM_THREADS=1 $(VENV)-oldest/bin/python -m pytest -n 2 --dist worksteal -m "not soak"

$(VENV)-oldest/.test: pyproject.toml
	$(MAKE) VENV=$(VENV)-oldest $(VENV)-oldest/.python
	@mkdir -p build
	$(VENV)-oldest/bin/python tests/oldest.py pyproject.toml > build/oldest.txt
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check --constraint build/oldest.txt \
		--editable ".[test,timm,onnx,parquet,heif,ray,usearch,datasets,loggers]"
	@touch $@

soak: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak -s

# The docs site, build/docs/index.html; a warning, such as a link to nowhere, is an error.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

$(VENV)/.docs: $(VENV)/.core
	$(PIP) --editable ".[docs]"
	@touch $@

# Wheel and source archive, as they would be published, into dist/.
dist: $(VENV)/.dist
	rm -rf dist build/lib
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

$(VENV)/.dist: $(VENV)/.core
	$(PIP) --editable ".[dist]"
	@touch $@

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Headstart needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Setting up in $(VENV): PyTorch and a few libraries, about 6 GB, some minutes"
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	@echo "Setting up the tests' libraries in $(VENV)"
	$(PIP) --editable ".[test,timm,onnx,parquet,heif,ray,loggers]"
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest build dist src/*.egg-info .mypy_cache .ruff_cache
