# The companion's commands. All that they make stays in this folder, pip's own cache apart.

PYTHON ?= python3.11
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
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 20

reproduce: $(READY) ## run all notebooks headless and compare with the paper; PRESET=smoke, mini or paper, JOBS=2
	$(BIN)/python -m fusionlib reproduce --preset $(PRESET) --jobs $(JOBS)

# One thread for each process: two run side by side, and would fight over the cores. Unit tests go to whichever is
# free, since those of one file take most of the time.
test numeric: export OMP_NUM_THREADS := 1

test: $(READY) ## run the unit tests, then every notebook cell by cell
	$(BIN)/python -m pytest -q -n 2 --dist worksteal
	$(BIN)/python -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadfile notebooks

# Sums round differently with every instruction set; the plainest is the furthest from that of a new processor.
numeric: export ATEN_CPU_CAPABILITY := default
numeric: export DNNL_MAX_CPU_ISA := SSE41
numeric: $(READY) ## run the tests of computed numbers again, on the plainest instructions of an x86 processor
	$(BIN)/python -m pytest -q -m numeric -n 2 --dist worksteal

browser: $(READY) ## run every notebook in JupyterLab in a real browser and move its widgets; needs Chromium
	$(BIN)/python -m pytest -q -rs tests/browser

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

clean: ## remove the environment, the caches and the smoke results
	rm -rf .venv .pytest_cache .hypothesis .ruff_cache build dist results/smoke
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# torch is named with its pin beside what depends on it, so that pip settles on that build first.
# PIP_CONSTRAINT reaches what -c does not: the throw-away environments in which pip builds a package.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 is needed and '$(PYTHON)' is not it: install it, or name yours: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@echo "Setting up .venv with the versions of constraints.txt (about three minutes, once) ..."
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT="constraints.txt $$PIP_CONSTRAINT" $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt "$$(grep '^torch==' constraints.txt)" -e '.[test]'
	@mkdir -p "$(STATE)"
	@touch $@
