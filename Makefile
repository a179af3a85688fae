# Two environments, so that the service's has no torch in it: .venv runs the service, .venv-dev runs everything else.
PYTHON ?= python3
PORT ?= 8000
RUNTIME ?= .venv
DEV ?= .venv-dev
CODE = setup.py src service training model_export reporting tests benchmarks deploy docker docs/conf.py

.PHONY: serve test test-deploy check bench docs format clean

serve: $(RUNTIME)/.installed
	CALIBRANT_PORT=$(PORT) $(RUNTIME)/bin/python -m service

# Compiled first, or each of the two processes would compile the same. A file of tests is one process's: what it has
# started serves all of them. A thread each, or those of the one spin while the other computes.
test: $(DEV)/.installed
	$(DEV)/bin/python -m service.kernels
	OMP_NUM_THREADS=1 $(DEV)/bin/python -m pytest --numprocesses 2 --dist loadfile

# Needs root and what `.ci/provision` installs: Docker, Prometheus, haproxy, kubectl, Chromium, axe-core.
test-deploy: $(DEV)/.installed
	$(DEV)/bin/python -m pytest deploy/tests

check: $(DEV)/.installed
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/lint-imports
	$(DEV)/bin/mypy $(CODE)

bench: $(DEV)/.installed
	$(DEV)/bin/python -m benchmarks

# A site in build/site, whose pages need nothing from outside.
docs: $(DEV)/.installed
	$(DEV)/bin/python -m sphinx -b html -W --keep-going -q -c docs . build/site

format: $(DEV)/.installed
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

# The stamp is written last: an interrupted installation is taken up again.
$(RUNTIME)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RUNTIME)
	$(RUNTIME)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[cpu,arrow,client,console]"
	touch $@

$(DEV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[cpu,train,ray,bench,dev]"
	touch $@

clean:
	rm -rf $(RUNTIME) $(DEV) build .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
