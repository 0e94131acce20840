# `make demo` shows the product, `make test` proves it; `make help` lists the rest. Each installs what is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HANDLERS := handlers/member_event handlers/order_event handlers/ready_for_traffic
DEBIAN_PACKAGES := serf haproxy s6 execline perl-base python3-venv curl openssl
# What the tests run beside the product: file systems of their own, the man page, shells.
TEST_PACKAGES := e2fsprogs man-db groff-base fish zsh busybox
# An ordinary user's PATH on Debian lacks the directory of haproxy.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# Tests run in this many processes: more than there are processors, since most of the time they wait.
WORKERS ?= 4
UNIT_WORKERS ?= 4
# SEED=N repeats the order and the random numbers of a test run, which prints its seed.
PYTEST := $(BIN)/pytest tests --ignore=tests/releases $(if $(SEED),--randomly-seed=$(SEED))
SIDE_BY_SIDE := --dist=loadscope --no-loadscope-reorder
UNIT := $(foreach part,integration containers benchmarks standby releases,--ignore=tests/$(part))

# Install Debian's packages: $(call apt_install,PACKAGES).
define apt_install
sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; echo "installing Debian's $(1)"; $$sudo apt-get -qq update && \
$$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $(1) >/dev/null
endef

.PHONY: help demo check unit test systems bench fuzz lint install packages test-packages images wheels pins clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 17

demo: install ## Show the product in a cluster on loopback; ONCE=1 ends it after the tour.
	@$(BIN)/serf-haproxy lab demo $(if $(ONCE),--once)

check: lint unit ## Run the linters and the unit tests: the loop while you work, two minutes.

unit: install test-packages ## Run the unit tests: no cluster, no containers.
	$(PYTEST) $(UNIT) --numprocesses=$(UNIT_WORKERS) $(SIDE_BY_SIDE)

# Tests that measure time or need all processors come first, one after another; then all others side by side. What failed
# runs once more, with nothing beside it and the same seed. A test that then passes lacked processor time, or shows a fault
# that few moments show: pytest names it. More than a few are a failure at once (AGAIN_COUNT in tests/conftest.py).
test: install test-packages lint ## Run the linters and all tests; SEED=N repeats an order; COVERAGE=yes prints the branch coverage.
	@alone=0; others=0; \
	$(PYTEST) -m alone --cache-clear || alone=$$?; \
	$(PYTEST) -m 'not alone' --randomly-seed=last --numprocesses=$(WORKERS) $(SIDE_BY_SIDE) --durations=20 \
	    $(if $(COVERAGE),--cov --cov-report=term:skip-covered) || others=$$?; \
	case "$$alone $$others" in \
	    "0 0") ;; \
	    "0 1" | "1 0" | "1 1") $(PYTEST) --randomly-seed=last --again ;; \
	    *) exit 1 ;; \
	esac

systems: install ## Run the demo and the tests that depend on the system in a new root directory of each Debian: half an hour.
	$(BIN)/pytest tests/releases

bench: ## Run all benchmarks and renew docs/benchmarks.md: two hours; QUICK=1 runs small ones and changes no file.
bench: install $(if $(QUICK),,$(VENV)/bench-installed)
	@set -e; run() { echo "== $$*"; $(BIN)/python "tests/benchmarks/$$@" $(if $(QUICK),,--results docs/benchmarks); }; \
	run time_to_route.py $(if $(QUICK),--joins 2); \
	run time_to_route.py --profile local $(if $(QUICK),--joins 2); \
	run lost.py $(if $(QUICK),--changes 16 --requests 0 --phase-s 4 --rate 1000); \
	run lost.py --reload $(if $(QUICK),--changes 8 --requests 0 --phase-s 4 --rate 1000,--changes 60 --requests 200000); \
	run storm.py $(if $(QUICK),--members 50); \
	run pass.py $(if $(QUICK),--rounds 2 --counts 10 1000); \
	run pass.py --ahead $(if $(QUICK),--rounds 2 --counts 10 1000,--counts 10 1000 10000); \
	run thousands.py $(if $(QUICK),--members 1000 --changes 6 --rest-s 5 --storm-s 2); \
	run peers/compare.py $(if $(QUICK),--changes 6 --quiet-s 10); \
	run gossip.py $(if $(QUICK),--agents 10 --rest-s 5); \
	run gossip.py --balancers 3 --restart $(if $(QUICK),--agents 10 --rest-s 1 --silence-s 5,--agents 100 --silence-s 30); \
	run look.py $(if $(QUICK),--counts 10 --span-s 2); \
	run viewer.py $(if $(QUICK),--counts 10 --opens 2 --span-s 2); \
	run handler.py $(if $(QUICK),--rounds 5); \
	run takeover.py $(if $(QUICK),--rounds 5 --faults "set aside" "not come back"); \
	run size.py; \
	run node_start.py $(if $(QUICK),--applications musl --starts 1)
	$(if $(QUICK),,$(BIN)/python tests/benchmarks/document.py)

.PHONY: study

# It goes on where it was interrupted: a cell with a result of the same code is skipped.
study: ## Run the study of HAProxy's algorithms and renew docs/study.md: a day; QUICK=1 runs a little and changes no file.
study: install $(VENV)/bench-installed
	@set -e; study() { echo "== study $$*"; $(BIN)/python tests/benchmarks/study "$$@"; }; \
	if [ -n "$(QUICK)" ]; then \
	    made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; cp docs/study.md "$$made"; \
	    for case in slow equal broken; do study run --case $$case --count 5 --quick --wait-s 5 --tries 1 --lag-ms 1000 --results "$$made/study" || true; done; \
	    study page --results "$$made/study" --docs "$$made/study.md"; \
	    sed -n '/^## Which algorithm fits/,$$p' "$$made/study.md"; \
	else \
	    failed=0; study run || failed=1; study constant || failed=1; study page; exit $$failed; \
	fi

.PHONY: autoscale-study

autoscale-study: ## Simulate laws of scaling and renew docs/autoscale-study.md, with TRACES="FILE ..." of requests a minute.
autoscale-study: install $(VENV)/bench-installed
	$(BIN)/python tests/benchmarks/scaling $(TRACES)

$(VENV)/bench-installed: $(VENV)/installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

RUNS ?= 100000
PARSERS ?= events nodes roster render layout haproxy orders

fuzz: install ## Fuzz every parser, or PARSERS, guided by coverage: RUNS cases each, from tests/fuzz/corpus.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@set -e; for parser in $(PARSERS); do \
	    echo "fuzzing $$parser"; FUZZ_WORK_DIR=$(VENV)/fuzz nice $(BIN)/python tests/fuzz/run.py $$parser -runs=$(RUNS); \
	done

lint: install ## Run ruff and mypy.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: packages $(VENV)/installed $(HANDLERS) ## Install Debian's packages, the venv and the handlers.

# Debian's packages, only when a program of theirs is missing; with sudo where we are not root.
packages:
	@missing=; \
	for program in serf haproxy s6-svscan execlineb perl curl openssl; do command -v $$program >/dev/null || missing=yes; done; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing=yes; \
	if [ -n "$$missing" ]; then $(call apt_install,$(DEBIAN_PACKAGES)); fi

test-packages:
	@missing=; \
	for program in mkfs.ext4 man groff fish zsh busybox; do command -v $$program >/dev/null || missing=yes; done; \
	if [ -n "$$missing" ]; then $(call apt_install,$(TEST_PACKAGES)); fi

$(VENV)/installed: pyproject.toml agent/serf_haproxy/__init__.py
	@echo "making $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(HANDLERS): %: %.py handlers/install $(VENV)/installed
	@handlers/install "$(CURDIR)/$(BIN)/python" $@

images: install ## Build the images and save each in dist/images, with its SBOM; BASE=IMAGE builds on another one.
	$(BIN)/python images/save.py $(if $(BASE),--base $(BASE)) $(if $(NETWORK),--network $(NETWORK))

# The pinned dependencies, for Debian 13's Python.
wheels: images/wheels/complete ## Fetch the images' dependencies, for a build that cannot reach a package index.

images/wheels/complete: $(wildcard images/requirements-*.txt) | $(VENV)/installed
	rm -rf images/wheels
	@set -e; for file in $(filter %.txt,$^); do \
	    $(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
	        --implementation cp --python-version 3.13 --abi cp313 --abi abi3 --abi none \
	        $(foreach tag,_2_28 _2_17 2014 _2_12,--platform manylinux$(tag)_$(shell uname -m)) \
	        --dest images/wheels --requirement $$file; \
	done
	@touch $@

# uv pins for another Python than ours.
pins: ## Pin the newest versions of the images' dependencies, with hashes.
	@set -e; \
	pin() { { echo '# Pinned for the images: make pins'; uv pip compile --quiet --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --python-version 3.13 -; } >images/requirements-$$1.txt; }; \
	printf '%s\n' 'jinja2>=3.1' 'msgpack>=1.1' 'prometheus-client>=0.20' 'psutil>=6' | pin balancer; \
	printf '%s\n' 'starlette>=0.45' 'uvicorn>=0.34' | pin webapp; \
	printf '%s\n' 'hatchling>=1.25' | pin build

clean: ## Remove what make has made.
	rm -rf $(VENV) $(HANDLERS) dist images/wheels .coverage

.PHONY: deb

deb: install ## Build the Debian packages serf-haproxy and serf-haproxy-node in dist.
	@$(BIN)/python images/packages/build dist

.PHONY: docs man

docs: install ## Renew the generated parts of docs/reference: the settings, the commands.
	$(BIN)/python docs/generate.py

man: install ## Write the man page and the shell completions to dist/share, as the wheel installs them.
	$(BIN)/python agent/hatch_build.py dist/share
