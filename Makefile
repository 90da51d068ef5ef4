# Two commands do all the set-up: `make train` and `make test`. Everything else is for contributors.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
AGENT ?= cartpole
PIP := $(BIN)/pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: train test check slow docs clean

train: $(VENV)/.run  ## trains the default agent (or AGENT=...) into runs/
	$(BIN)/python -m rlweights.train $(AGENT)

test: $(VENV)/.test  ## runs the tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: $(VENV)/.dev  ## what must be clean: ruff, formatting, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: $(VENV)/.test  ## the learning and soak suites, before a release
	$(BIN)/python -m pytest -q -m slow

docs: $(VENV)/.docs  ## builds the documentation into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("rlweights needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	@echo "making a Python environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing rlweights and TensorFlow into $(VENV): about 1.5 GB, a minute or more"
	$(PIP) -e '.[classic-control]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what the tests need into $(VENV): a minute or more"
	$(PIP) -e '.[classic-control,test]'
	touch $@ $(VENV)/.run

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what contributors need into $(VENV): a minute or more"
	$(PIP) -e '.[classic-control,test,dev]'
	touch $@ $(VENV)/.run $(VENV)/.test

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what the documentation needs into $(VENV)"
	$(PIP) -e '.[docs]'
	touch $@
