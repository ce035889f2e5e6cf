# SPEAR's workspace on a machine without ROS. With apt ROS 2 Jazzy use rosdep and colcon; see README.md.

SHELL := /bin/bash
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c '' 2>/dev/null && echo $$python && break; done || echo python3)
POLICY ?= scripted
TRIALS ?= 5
OUT ?= out/demo
# What to install beside what a robot needs: training, annotation, dev
EXTRAS ?=
# make faults: how often each row runs, and which rows: all, those of a bench, or with this word in the name
N ?= 5
ROWS ?=
# One test file or folder, and further pytest options: make test TESTS=test/test_lint.py PYTEST_ARGS=-x
TESTS ?=
PYTEST_ARGS ?=

# The caller's shell may have another workspace sourced; ours starts from nothing.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH PYTHONPATH PYTHONHOME
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

ACTIVATE := . .venv/setup.sh
SOURCE := . install/setup.bash

# What makes a build necessary: other Python files are linked, not copied.
PARTS := package.xml setup.py setup.cfg colcon.pkg
DATA := launch config params env rviz foxglove resource
INPUTS := $(shell find spear_msgs -type f) \
	$(wildcard $(foreach part,$(PARTS),spear_*/$(part) test/$(part)))
LINKED := $(shell find $(wildcard $(addprefix spear_*/,$(DATA))) -type f -not -path '*/__pycache__/*' | sort)

.DEFAULT_GOAL := help
.PHONY: help setup everything build demo faults test test-slow lint shell clean always

help:
	@echo 'make setup      Debian packages, Python environment in .venv (EXTRAS="training annotation")'
	@echo 'make build      colcon build; then ". install/setup.bash" is all a shell needs'
	@echo 'make demo       simulated trials and their report (POLICY=$(POLICY) TRIALS=$(TRIALS) OUT=$(OUT))'
	@echo 'make faults     every fault N=$(N) times into docs/reliability.md; goes on where it was ended (ROWS=word)'
	@echo 'make test       all quick tests (TESTS=path PYTEST_ARGS=...);  make test-slow: the others'
	@echo 'make lint       ruff and the ament linters'
	@echo 'make shell      a shell with everything sourced'
	@echo 'make clean      remove what was built; .venv and out stay'

setup: .venv/.ready
	@$(if $(EXTRAS),$(PYTHON) requirements/bootstrap.py .venv $(EXTRAS))

.venv/.ready: $(wildcard requirements/*)
	@$(PYTHON) requirements/bootstrap.py .venv && touch $@

# Tests and linters look at everything.
everything: .venv/.ready
	@$(PYTHON) requirements/bootstrap.py .venv training annotation dev

build: build/.ready
	@:

# A list of the linked data files, rewritten only when a file comes or goes.
build/.linked: always
	@mkdir -p build && echo '$(LINKED)' | cmp -s - $@ || echo '$(LINKED)' > $@

build/.ready: .venv/.ready build/.linked $(INPUTS)
	@$(ACTIVATE) && flock build/.lock colcon --log-base build/log build --symlink-install \
		--event-handlers summary+
	@touch $@

demo: build
	@$(SOURCE) && POLICY='$(POLICY)' TRIALS='$(TRIALS)' OUT='$(OUT)' \
		install/spear_bringup/lib/spear_bringup/spear_demo

faults: build
	@$(SOURCE) && PYTHONPATH="$$PYTHONPATH:test:spear_bringup/test" \
		python3 test/fault_matrix.py --repeats '$(N)' --rows '$(ROWS)'

test: everything build
	@$(SOURCE) && .ci/test $(PYTEST_ARGS) $(TESTS)

test-slow: everything build
	@$(SOURCE) && python3 -m pytest -rfEs $(PYTEST_ARGS) -m slow --junitxml=build/test-slow.xml $(TESTS)

lint: everything
	@$(ACTIVATE) && .ci/lint

shell: build
	@bash --rcfile <(echo '[ -f ~/.bashrc ] && . ~/.bashrc; . install/setup.bash; PS1="(spear) $$PS1"')

clean:
	rm -rf build install log .pytest_cache .ruff_cache .hypothesis
