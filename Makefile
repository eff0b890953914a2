PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo demo-train test lint clean

demo: $(VENV)/.installed  ## a room, rendered with the weights that come with the repository: two minutes
	$(RUN) -m viewing.demo

demo-train: $(VENV)/.installed  ## rooms, training, pictures: a few minutes
	$(RUN) -m train.demo

test: $(VENV)/.installed  ## all tests; those of a GPU skip without one
	$(RUN) -m pytest -q -n 2 --dist worksteal

lint: $(VENV)/.installed  ## style, format and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

$(VENV)/.installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; name one with PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	touch $@

clean:
	rm -rf $(VENV) data/demo data/demo_train .pytest_cache .ruff_cache .mypy_cache
