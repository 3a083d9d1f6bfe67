# The commands of this project. All of them need root: they make VEs, namespaces and mounts.
#   make rack   a rack on this machine: controller, three hosts, twelve VEs
#   make down   takes it away
#   make image-debian   debian-12.tar.zst, an image with systemd
#   make test   everything that decides whether a change is good
#   make lint, unit or component   its fast parts;  make bench  the measurements
#   make sim    thousands of simulated stories (COUNT=20000);  make sim-mutants  all seeded bugs;  make sim-etcd  the model's check
#   make chaos  faults on a rack of real processes: all cases, then ROUNDS=200 random rounds (SEED=, VES=)
#   make stubs  after a change of a .proto

PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := lxc lxcfs uidmap btrfs-progs nftables iproute2 busybox-static etcd-server etcd-client \
  python3-venv iputils-ping xz-utils zstd tar skopeo mmdebstrap procps util-linux ca-certificates
export PYTHONPATH := deploy/dev

.PHONY: image-debian rack down test lint unit component bench chaos stubs setup dev packages

rack: setup
	@$(BIN)/python -m devrack up

down:
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m devrack down; \
	else PYTHONPATH=deploy/dev $(PYTHON) -m devrack down; fi

test: dev
	@sh tests/run.sh

lint: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy proto controller agent deploy/dev tests
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/python proto/generate.py --check

unit: dev
	$(BIN)/pytest -q tests/unit

component: dev
	$(BIN)/pytest -q tests/component

bench: dev
	PYTHONPATH=deploy/dev:tests $(BIN)/python -m bench

image-debian: packages
	@sh deploy/images/debian.sh debian-12.tar.zst
	@echo "made debian-12.tar.zst: vectl image import debian:12 debian-12.tar.zst"

sim: dev
	PYTHONPATH=tests $(BIN)/python -m sim run --count $(COUNT)

sim-mutants: dev
	PYTHONPATH=tests $(BIN)/python -m sim mutants

sim-etcd: dev
	VERACK_SEQUENCES=5000 $(BIN)/pytest -q tests/integration/test_store_sequences.py

chaos: dev
	PYTHONPATH=deploy/dev:tests $(BIN)/python -m chaos run --rounds $(or $(ROUNDS),200) $(if $(SEED),--seed $(SEED)) --ves $(or $(VES),100)

stubs: dev
	$(BIN)/python proto/generate.py

setup: packages $(VENV)/.installed

dev: packages $(VENV)/.dev

packages:
	@sh deploy/dev/packages.sh $(PACKAGES)

$(VENV)/.installed: pyproject.toml
	@echo "making $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check --editable '.[speed]'
	@touch $@

$(VENV)/.dev: pyproject.toml
	@echo "making $(VENV) with the development tools ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check --editable '.[speed,dev]'
	@touch $@ $(VENV)/.installed
