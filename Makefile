# One command from a clean clone: `make demo` or `make test`. Needs Python 3.11 or newer, git and make.
PYTHON ?= $(firstword $(shell command -v python3.11 2>/dev/null) python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
# the environment's own pip or, where Debian split ensurepip off, the system's pip working on the environment
PIP     = $(shell $(BIN)/python -m pip -V >/dev/null 2>&1 && echo $(BIN)/python -m pip || echo $(PYTHON) -m pip --python $(BIN)/python)
# torch goes first and alone: a wheel in reach of pip's --find-links, else TORCH_INDEX if given, else pip's default index.
# On Linux the default index brings the CUDA build (several GB). A CPU is all that kappahop uses, so to download less give
# the address of the CPU wheels that the PyTorch site names for pip:  make setup TORCH_INDEX=https://...
TORCH  := $(shell sed -n 's/^\(torch==[0-9.]*\)$$/\1/p' constraints.txt)
TORCH_INDEX ?=
# A smaller instruction set for each library that picks kernels by processor: torch, MKL, OpenBLAS, numpy. On other processors
# than Intel's, MKL has COMPATIBLE (SSE2) and no other.
SMALLER ?= ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Haswell NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR"

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow chaos exact browser check fmt bench docs site wheel lock clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make the environment .venv with the tested versions

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("kappahop needs Python 3.11 or newer, found %d.%d; set PYTHON=/path/to/python3.11" % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@echo "installing $(TORCH) ..."
	@$(PIP) install -q --no-index --no-deps '$(TORCH)' 2>/dev/null \
	  || $(PIP) install -q $(if $(TORCH_INDEX),--no-deps --index-url '$(TORCH_INDEX)',-c constraints.txt) '$(TORCH)'
	@echo "installing the rest ..."
	@$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.ready ## run the scenario "quickstart"
	$(BIN)/kappahop run quickstart

test: $(VENV)/.ready ## the whole test suite, with real processes
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not browser and not slow"

slow: $(VENV)/.ready ## the tests that take longest: hostile peers, real time, killed sweeps; every call is checked against its annotations
	KAPPAHOP_CHECK_CALLS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow

exact: $(VENV)/.ready ## equality to the last bit once more, with the instructions of older processors (SMALLER="..." sets others)
	env $(SMALLER) $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "exact and not slow"

chaos: $(VENV)/.ready ## 60 runs with a signal to one of their processes, 2,000 requests to stop under load (20 minutes or more)
	KAPPAHOP_CHAOS=60 KAPPAHOP_STOPS=2000 $(BIN)/python -m pytest -q tests/system/test_chaos.py tests/system/test_stops.py

browser: $(VENV)/.ready ## the report and the live page in a headless Chromium; brings one, or set KAPPAHOP_CHROMIUM=/path
	@$(PIP) install -q -c constraints.txt -e '.[browser]'
	@export VENV=$(VENV) && . .ci/chromium && $(BIN)/python -m pytest -q -m browser tests/browser

check: $(VENV)/.ready ## style, imports between packages, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/codespell -D - -D .codespell-british

fmt: $(VENV)/.ready ## repair what style tools can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready ## measure on this machine: throughput, what links with limits cost, the link model
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/links.py
	$(BIN)/python benchmarks/link_model.py

docs: $(VENV)/.ready ## write the pages that are made from code
	$(BIN)/kappahop schema --markdown > docs/reference/settings.md
	sed -i '/^## network$$/,$$d' docs/reference/links.md && $(BIN)/kappahop schema --markdown --section network >> docs/reference/links.md
	sed -i '/^| kind /,$$d' docs/reference/kinds.md && $(BIN)/python -c 'from scenarios.kinds import markdown; print(markdown(), end="")' >> docs/reference/kinds.md
	$(BIN)/python -c 'from coordinator.cli import app, reference; print(reference.markdown(app.app), end="")' > docs/reference/command-line.md

site: $(VENV)/.ready ## the documentation as HTML that opens from disk: build/site/index.html
	@$(PIP) install -q -c constraints.txt -e '.[site]'
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site

wheel: $(VENV)/.ready ## build the wheel and read a scenario from it, away from this folder
	@rm -rf dist build/wheel && mkdir -p build
	$(BIN)/python -m build --wheel --no-isolation >/dev/null
	@$(PYTHON) -m venv --without-pip build/wheel
	@$(PYTHON) -m pip -q --python build/wheel/bin/python install --no-index --no-deps dist/kappahop-*.whl
	@cd / && PYTHONPATH='$(abspath $(shell $(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"))' \
	  '$(abspath build/wheel/bin/python)' -P -c 'import coordinator.cli.guard as g, scenarios.loading as s; g.check_origin(); \
	  print("wheel holds", ", ".join(s.shipped())); s.load("quickstart"); assert "build/wheel" in s.__file__, s.__file__'

lock: $(VENV)/.ready ## write constraints.txt anew from pyproject.toml
	$(PIP) install -q pip-tools
	@mkdir -p build
	$(BIN)/pip-compile -q --upgrade --strip-extras --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --no-emit-options --extra dev --extra browser --extra site -o build/constraints.txt pyproject.toml
	@{ echo '# exact versions that everything was tested with; `make lock` rewrites this file'; \
	  sed -e '/^#/d' -e '/^$$/d' -e 's/^\(torch==[0-9.]*\)+.*/\1/' build/constraints.txt; } > constraints.txt

clean: ## remove the environment, caches and what was built
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
