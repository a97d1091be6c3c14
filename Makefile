# The companion's commands. All that they make stays in this folder, pip's own cache apart.

# The Python for .venv, as in make PYTHON=/path/to/python; without it the first of PYTHONS that fits, or uv's.
PYTHON ?=
PRESET ?= smoke
JOBS   ?= 2

BIN   := .venv/bin
READY := .venv/.ready
STATE := $(CURDIR)/.venv/state

# Jupyter, IPython and matplotlib keep settings, caches and sockets below the home directory unless told otherwise.
export IPYTHONDIR          := $(STATE)/ipython
export JUPYTER_CONFIG_DIR  := $(STATE)/jupyter
export JUPYTER_DATA_DIR    := $(STATE)/jupyter
export JUPYTER_RUNTIME_DIR := $(STATE)/run
export MPLCONFIGDIR        := $(STATE)/matplotlib

# Waiting threads sleep soon instead of spinning (fusionlib/support/threads.py says why); a setting of your own wins.
ifeq ($(OMP_WAIT_POLICY),)
export GOMP_SPINCOUNT ?= 1000
endif

.PHONY: help reproduce test numeric browser lab clean

help: ## show this list
	@echo "Targets (the first one that needs it sets up .venv, about three minutes):"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-13s%s\n", $$1, $$2 }' Makefile

reproduce: $(READY) ## run all notebooks headless and compare with the paper; PRESET=smoke, mini or paper, JOBS=2
	$(BIN)/python -m fusionlib reproduce --preset $(PRESET) --jobs $(JOBS)

# One thread for each process: two run side by side, and would fight over the cores. Unit tests go to whichever is
# free, since those of one file take most of the time.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

test: $(READY) ## run the unit tests, then every notebook cell by cell
	$(PYTEST) --dist worksteal
	$(PYTEST) --nbval-lax --nbval-current-env --nbval-cell-timeout=300 --dist loadfile notebooks

# Sums round differently with every instruction set; the plainest is the furthest from that of a new processor.
numeric: $(READY) ## run the tests of computed numbers again, on the plainest instructions of an x86 processor
	ATEN_CPU_CAPABILITY=default DNNL_MAX_CPU_ISA=SSE41 $(PYTEST) -m numeric --dist worksteal

browser: $(READY) ## run every notebook in JupyterLab in a real browser and move its widgets; needs Chromium
	$(BIN)/python -m pytest -q -rs tests/browser

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

clean: ## remove the environment, the caches and the smoke results
	rm -rf .venv .pytest_cache .hypothesis .ruff_cache build dist results/smoke
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

PYTHONS := python3.13 python3.12 python3.11 python3 python
FITS    := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
NEEDED  := Python 3.11, 3.12 or 3.13 is needed
AGAIN   := or install uv, which brings its own Python, and run make again.
INTEL   := There is no PyTorch $(shell sed -n 's/^torch==//p' constraints.txt) for Macs with an Intel processor: use Linux.

# A name in PATH may be a stand-in that does not run, so each is tried; Debian packs ensurepip, a part of venv, apart.
# A .venv that works keeps its Python; after `make clean`, another one may be named.
# torch is named with its pin beside what depends on it, so that pip settles on that build first.
# PIP_CONSTRAINT reaches what -c does not: the throw-away environments in which pip builds a package.
$(READY): pyproject.toml constraints.txt
	@if [ "$$(uname -sm)" = "Darwin x86_64" ]; then echo "$(INTEL)" >&2; exit 1; fi; \
	kept=.venv/bin/python; found=; bare=; \
	if [ -z "$(PYTHON)" ] && $$kept -m pip --version >/dev/null 2>&1 && $$kept -c '$(FITS)'; then exit 0; fi; \
	for python in $(or $(PYTHON),$(PYTHONS)); do \
		$$python -c '$(FITS)' >/dev/null 2>&1 || continue; \
		if $$python -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$python; break; fi; \
		bare=$${bare:-$$python}; \
	done; \
	if [ -n "$$found" ]; then rm -rf .venv; $$found -m venv .venv; \
	elif [ -z "$(PYTHON)" ] && command -v uv >/dev/null 2>&1; then \
		rm -rf .venv; uv venv --quiet --seed --python '>=3.11,<3.14' .venv; \
	elif [ -n "$$bare" ]; then \
		echo "$$bare has no module venv: install it (Debian: apt-get install $${bare##*/}-venv), $(AGAIN)" >&2; exit 1; \
	elif [ -n "$(PYTHON)" ]; then \
		echo "$(NEEDED) and '$(PYTHON)' is not one: name another with make PYTHON=/path/to/python." >&2; exit 1; \
	else echo "$(NEEDED) and none was found: install one, $(AGAIN)" >&2; exit 1; fi
	@echo "Setting up .venv with $$($(BIN)/python -V) and the versions of constraints.txt (about three minutes, once) ..."
	PIP_CONSTRAINT="constraints.txt $$PIP_CONSTRAINT" $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt "$$(grep '^torch==' constraints.txt)" -e '.[test]'
	@mkdir -p "$(STATE)"
	@touch $@
