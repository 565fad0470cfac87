# What a person types is what CI runs. Everything is installed into .venv; nothing outside it is touched.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARM    := aarch64-unknown-linux-gnu
RUST   := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock pyproject.toml

export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Builds and tests must not depend on a caller's environment.
unexport PYTHONPATH PYTHONHOME CONDA_PREFIX

.PHONY: plan test test-tiers lint bench bench-sls bench-queue bench-lp check-queue check-search check-profile check-lp build clean help
.DELETE_ON_ERROR:

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/'

plan: build ## plan a week of the built-in fleet (writes runs/plan-NNNN)
	$(BIN)/hercules-fast plan $(ARGS)

test: build $(VENV)/.dev ## all tests, Rust and Python
	cargo test --locked --package hercules-core
	$(BIN)/python -m pytest $(ARGS)

test-tiers: build $(VENV)/.dev ## the embedding-bag tests once more, under each lower instruction set
	for isa in portable avx2; do \
		HERCULES_FAST_ISA=$$isa $(BIN)/python -m pytest -k 'bag or embedding or sls' || exit 1; \
	done

check-queue: build $(VENV)/.dev ## the queueing simulator against theory at length, and its intervals (minutes)
	$(BIN)/python -m pytest -m long -q -s tests/oracle/test_queueing_oracle.py tests/oracle/test_queueing_coverage.py $(ARGS)

check-search: build $(VENV)/.dev ## the search against every configuration of every pair, and its rivals (minutes)
	$(BIN)/python -m pytest -m long -q -s tests/differential/test_search_proof.py $(ARGS)

check-profile: build $(VENV)/.dev ## 200 profiles killed at random moments, and resumed (minutes)
	$(BIN)/python -m pytest -m long -q tests/unit/test_profile_kill.py $(ARGS)

check-lp: build $(VENV)/.dev ## the solvers of provisioning against HiGHS on 11,000 random fleets (minutes)
	$(BIN)/python -m pytest -m long -q tests/differential/test_network.py $(ARGS)

lint: build $(VENV)/.dev ## formatting, lints, types
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if [ -d "$$(rustc --print target-libdir --target $(ARM))" ]; then \
		cargo check --locked --package hercules-core --target $(ARM); \
	else echo "skipped: a check for $(ARM), which this toolchain does not have"; fi
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: build $(VENV)/.bench ## benchmarks beside their rivals and limits (ARGS="-k sls")
	$(BIN)/python -m pytest benches --benchmark-enable --benchmark-only -p no:cacheprovider $(ARGS)

bench-sls: build $(VENV)/.bench ## embedding bags at every point, with a summary by class (ARGS="-k 'int8 and t1'")
	$(BIN)/python -m pytest benches/bench_sls.py --benchmark-enable --benchmark-quiet -p no:cacheprovider -q -s $(ARGS)

bench-queue: build $(VENV)/.bench ## the queue simulator beside Numba, cimba, SimPy and Ciw (ARGS="-k 'M/M/16'")
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest benches/bench_queue.py --benchmark-enable --benchmark-quiet -p no:cacheprovider -q -s $(ARGS)

bench-lp: build $(VENV)/.bench ## linear programs of provisioning beside HiGHS, GLOP, SciPy, CVXPY and PuLP (ARGS="-m long" for the largest)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest benches/bench_lp.py --benchmark-enable --benchmark-quiet -p no:cacheprovider -q -s $(ARGS)

build: $(VENV)/.built ## the extension, in release mode

clean: ## remove everything that the other commands made
	rm -rf $(VENV) target runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find python -name '*.so' -delete

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or newer, or make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11: install a newer one, or make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv: install it (Debian: python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.base: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --group plan
	@touch $@

$(VENV)/.dev: $(VENV)/.base pyproject.toml
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/.bench: $(VENV)/.dev pyproject.toml
	$(BIN)/python -m pip install --quiet --group bench
	@touch $@

$(VENV)/.built: $(VENV)/.base $(RUST)
	@command -v cargo >/dev/null || { echo "cargo not found: install Rust 1.89 or newer (rust-lang.org)"; exit 1; }
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
