# Every target does its own set-up, in this folder: a virtual environment, the pinned
# dependencies and the package itself. Nothing outside the folder changes.
#
#   make demo        the main job on a synthetic log of a million rows
#   make test        lint, types, docs, tests (what CI runs)
#   make test-slow   the tests that take minutes
#   make fuzz        mutated files of every kind, 12,000 tries: half an hour, docs/reliability.md
#   make kill        every command killed at each of its file operations: an hour or more
#   make bench       lookups, bags, whole models, scale: bench-out/*.json, docs/benchmarks.md
#   make bench-serving  scores over HTTP: load beside rivals, hot swaps, attacks; docs/serving.md
#   make results     the paper's claim in the open, cell by cell: hours; stop it, call it again
#   make rivals      the libraries that `make bench` measures beside ours, in .rivals
#   make frameworks  the frameworks of examples/frameworks, in .frameworks
#   make test-frameworks  their integration tests on real rows: minutes
#   make runtimes    ExecuTorch beside ONNX Runtime and AOTInductor, in .runtimes
#   make test-runtimes  what is exported for it, held against torch: minutes
#   make bench-runtimes  all runtimes on the same ids: an hour or more; docs/serving.md
#   make integrations  each of them whole and folded: an hour or two; docs/integrations.md
#   make docs        the site of the documentation, in docs/_build/html
#   make picture     draw the README's pictures again, from the last demo
#   make setup       only the set-up, with the development tools
#   make clean       remove what the targets made
#
#   PYTHON=python3.12       another interpreter (3.11 or newer)
#   TORCH_INDEX=URL         the index that has the build of torch you want
#   WORKERS=4               test processes
#   DATA=FOLDER             public data sets for `make results`
#   MINUTES=60, ONLY=BOARD  how long `make results` and `make fuzz` go on, and on which board
#   EVERY=5                 only each fifth file operation for `make kill`
#   JOBS=2                  its processes, of one thread each

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo test test-slow fuzz kill bench bench-serving results rivals frameworks \
	test-frameworks runtimes test-runtimes bench-runtimes integrations lint types docs picture \
	setup clean

VENV := .venv
BIN := $(VENV)/bin
FRAMEWORKS := .frameworks
RUNTIMES := .runtimes
WORKERS ?= 2
DEMO_OUT ?= demo-out
BENCH_OUT ?= bench-out
KILL_OUT ?= kill-out
EVERY ?= 1
RESULTS_OUT ?= results-out
DATA ?= ../shared/data
MINUTES ?=
ONLY ?=
JOBS ?= 2
CHARTS ?= docs/charts
BENCH_PAGE ?= docs/benchmarks.md
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH_INDEX ?=
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

demo: $(VENV)/.demo-ready
	$(BIN)/python -m bitfold.cli.demo --out $(DEMO_OUT)

test: lint types docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --doctest-modules src/bitfold tests

test-slow: $(VENV)/.dev-ready
	$(BIN)/python -m pytest -m slow tests

kill: $(VENV)/.dev-ready
	rm -rf $(KILL_OUT)
	OMP_NUM_THREADS=1 $(BIN)/python tests/killing.py $(KILL_OUT) --every $(EVERY)

fuzz: $(VENV)/.dev-ready
	OMP_NUM_THREADS=1 $(BIN)/python -m fuzz $(if $(MINUTES),--minutes $(MINUTES)) --page docs/reliability.md

bench: $(VENV)/.dev-ready
	for subject in lookups bags training scaling lowbit; do \
		$(BIN)/python benchmarks/$$subject.py --out $(BENCH_OUT) || exit 1; done
	$(BIN)/python benchmarks/charts.py --figures $(BENCH_OUT) --out $(CHARTS)
	$(BIN)/python benchmarks/tables.py --figures $(BENCH_OUT) --page $(BENCH_PAGE)

bench-serving: $(VENV)/.dev-ready rivals
	for subject in load swaps attack; do \
		$(BIN)/python benchmarks/serving.py $$subject --out $(BENCH_OUT) --page docs/serving.md \
			$(if $(MINUTES),--minutes $(MINUTES)) || exit 1; done

results: $(VENV)/.dev-ready
	$(BIN)/python -m benchmarks.results --data $(DATA) --out $(RESULTS_OUT) \
		--jobs $(JOBS) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(ONLY),--only $(ONLY))

rivals:
	@test -n "$(PYTHON)" || { echo "bitfold needs Python 3.11 or newer; say PYTHON=/path/to/python" >&2; exit 2; }
	@PYTHON="$(PYTHON)" TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" benchmarks/rivals/install.sh

frameworks: $(FRAMEWORKS)/.ready

test-frameworks: $(FRAMEWORKS)/.ready
	OMP_NUM_THREADS=1 $(FRAMEWORKS)/bin/python -m pytest -p no:cacheprovider tests/frameworks

runtimes: $(RUNTIMES)/.ready

test-runtimes: $(RUNTIMES)/.ready
	OMP_NUM_THREADS=1 $(RUNTIMES)/bin/python -m pytest -p no:cacheprovider tests/runtimes

bench-runtimes: $(RUNTIMES)/.ready
	$(RUNTIMES)/bin/python -m benchmarks.runtimes --page docs/serving.md

integrations: $(VENV)/.dev-ready $(FRAMEWORKS)/.ready
	$(BIN)/python benchmarks/integrations.py --data $(DATA) --out $(BENCH_OUT) --page docs/integrations.md

lint: $(VENV)/.dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev-ready
	$(BIN)/mypy

docs: $(VENV)/.dev-ready
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

picture: $(VENV)/.dev-ready
	$(BIN)/python docs/draw.py $(DEMO_OUT)/board/results.json docs/demo.svg
	$(BIN)/python docs/screen.py $(DEMO_OUT)/board/board.html docs/page.png

setup: $(VENV)/.dev-ready

clean:
	rm -rf $(VENV) docs/_build .rivals $(FRAMEWORKS) $(RUNTIMES) $(DEMO_OUT) $(BENCH_OUT) $(RESULTS_OUT) $(KILL_OUT) build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first and alone: its build (CPU or GPU) is the machine's choice, and the constraint on
# the rest accepts any build of the pinned version.
$(VENV)/.torch-ready: constraints.txt
	@test -n "$(PYTHON)" || { echo "bitfold needs Python 3.11 or newer; say PYTHON=/path/to/python" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "set-up: virtual environment in $(VENV) ($(PYTHON))"; $(PYTHON) -m venv $(VENV); }
	@echo "set-up: $(TORCH) (the large one: a minute or more)"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@touch $@

$(VENV)/.demo-ready: $(VENV)/.torch-ready pyproject.toml
	@echo "set-up: bitfold and what it needs to train"
	@$(PIP) -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.torch-ready pyproject.toml
	@echo "set-up: bitfold and what it needs to be developed"
	@$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo-ready

# An environment of their own, each package pinned and installed without its dependencies: theirs
# contradict each other, and one of them asks for gigabytes of CUDA.
$(FRAMEWORKS)/.ready: constraints.txt examples/frameworks/requirements.txt
	@test -n "$(PYTHON)" || { echo "bitfold needs Python 3.11 or newer; say PYTHON=/path/to/python" >&2; exit 2; }
	@echo "set-up: frameworks in $(FRAMEWORKS) ($(PYTHON), a few minutes, 2.6 GB)"
	@test -x $(FRAMEWORKS)/bin/python || $(PYTHON) -m venv $(FRAMEWORKS)
	@$(subst $(BIN),$(FRAMEWORKS)/bin,$(PIP)) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@$(subst $(BIN),$(FRAMEWORKS)/bin,$(PIP)) --no-deps -r examples/frameworks/requirements.txt -e .
	@touch $@

# The package with what it needs to train and to export, and ExecuTorch without its dependencies.
$(RUNTIMES)/.ready: constraints.txt pyproject.toml tests/runtimes/requirements.txt
	@test -n "$(PYTHON)" || { echo "bitfold needs Python 3.11 or newer; say PYTHON=/path/to/python" >&2; exit 2; }
	@echo "set-up: runtimes in $(RUNTIMES) ($(PYTHON), a few minutes, 2 GB)"
	@test -x $(RUNTIMES)/bin/python || $(PYTHON) -m venv $(RUNTIMES)
	@$(subst $(BIN),$(RUNTIMES)/bin,$(PIP)) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@$(subst $(BIN),$(RUNTIMES)/bin,$(PIP)) -c constraints.txt -e '.[train,export,testing]' hypothesis
	@$(subst $(BIN),$(RUNTIMES)/bin,$(PIP)) --no-deps -r tests/runtimes/requirements.txt
	@touch $@
