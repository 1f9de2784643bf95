# All that a fresh machine needs: `make demo` shows what this is, `make test` proves it. Run again, they go straight to it.
VENV ?= .venv
PYTHON ?= python3
WORKDIR ?= /tmp/demo

.PHONY: demo test

demo: $(VENV)/installed
	$(VENV)/bin/ladder run demo --workdir $(WORKDIR)

test: $(VENV)/installed
	. $(VENV)/bin/activate && pytest -n auto

$(VENV)/installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[all]'
	touch $@
