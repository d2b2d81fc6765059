# make demo: set up, then extract and train on the embedded digits.  make docs: the site.
# make pictures: the pictures of README and docs, from real runs.
# make test: set up, then lint, types and tests, in minutes.  make test-long: the campaigns (CONTRIBUTING.md says what is where).
PYTHON ?= python3
# Processes that share the tests out.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is made of what is imported, when it is imported.
PIP := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
# What is installed: what the product needs, what make test needs besides, what make test-long needs besides.
RUN := $(VENV)/installed
DEV := $(VENV)/installed-dev
LONG := $(VENV)/installed-long
SITE := $(VENV)/installed-docs

.PHONY: demo test test-long docs pictures lint types unit clean

demo: $(RUN)
	$(BIN)/tosca run --dataset digits

# Types are checked on one core while tests start on the other.
test: $(DEV)
	$(MAKE) -j2 checks unit

.PHONY: checks
checks: lint types

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror tosca_cache/train/native/*.[ch]pp benchmarks/*.cpp

types: $(DEV)
	$(BIN)/mypy

unit: $(DEV)
	$(PYTEST) -m "not long"

test-long: $(LONG)
	TOSCA_TEST_LONG=1 $(PYTEST) -m "long or campaign"

docs: $(SITE)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict -f tools/mkdocs.yml
	@echo "the site: build/site/index.html"

pictures: $(DEV)
	$(BIN)/python tools/make_pictures.py

$(RUN): pyproject.toml setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tosca_cache needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch and what else is needed (about a minute)"
	$(PIP) setuptools
	$(PIP) --no-build-isolation -e .
	touch $@

$(DEV): $(RUN)
	@echo "installing what the tests need"
	$(PIP) --no-build-isolation -e '.[dev]'
	touch $@

$(LONG): $(DEV)
	@echo "installing what the campaigns need"
	$(PIP) --no-build-isolation -e '.[dev-long]'
	touch $@

$(SITE): $(RUN)
	@echo "installing what the site needs"
	$(PIP) --no-build-isolation -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
