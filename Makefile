# One command each; `make` alone lists them. ARGS reach pytest, the benchmark or the lab: make unit ARGS="-k plan -x".
.DEFAULT_GOAL := help
.PHONY: help setup fmt lint type unit covered live lab-test test check campaign lab demo bench docs fresh lock clean

PYTHON := .venv/bin/python
STAGE := @python3 tools/test.py setup
ARGS ?=
KERNEL ?= fastest

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 12

setup: ## make .venv, with nkform in it, and install what Debian packages are missing
	@tools/setup.sh

fmt: setup ## format the code, and mend what ruff can mend
	@$(PYTHON) -m ruff format . tools/lab
	@$(PYTHON) -m ruff check --fix . tools/lab

lint: ## ruff: style and formatting
	$(STAGE) lint

type: ## mypy, strict
	$(STAGE) type

unit: ## the tests that anyone can run
	$(STAGE) unit -- $(ARGS)

covered: setup ## how much of plan/, report/ and session/ tests without root run; ARGS=--missing names the lines
	@$(PYTHON) tools/covered.py $(ARGS)

live: ## the tests on this kernel, side by side (root; in network namespaces of their own)
	$(STAGE) live -- $(ARGS)

lab-test: ## the same tests on other kernels: all on the newest Linux, most on 6.12, a smoke set on Debian's own (root)
	$(STAGE) lab -- $(ARGS)

test: ## all of the above, with a summary: a quarter of an hour
	@python3 tools/test.py -- $(ARGS)

check: ## lint, types, unit, and live tests that the change touches: 90 seconds
	@python3 tools/test.py check -- $(ARGS)

campaign: setup ## hours of attacks, floods, walks and fuzz, written down in docs/evidence.md (root)
	@python3 tools/campaign.py $(ARGS)

lab: setup ## a shell on a kernel with netkit, or on another: make lab KERNEL=6.12
	@tools/lab shell $(KERNEL)

demo: setup ## see it work
	@if unshare --net ip link add nkprobe type netkit 2>/dev/null; then \
	    exec tools/demo.sh; \
	else \
	    echo "This kernel has no netkit: the demo runs in the lab, on the newest kernel that Debian has."; \
	    exec tools/lab run fastest -- tools/demo.sh; \
	fi

bench: setup ## measure; ARGS are the device benchmark's
	@$(PYTHON) benchmarks/bench.py $(ARGS)
	@$(PYTHON) -m benchmarks.chains
	@$(PYTHON) -m benchmarks.programs
	@$(PYTHON) -m benchmarks.gap

docs: setup ## make the documents that come out of the code
	@$(PYTHON) tools/docs.py

fresh: ## set up and run the unit tests in new Debian 12 and 13 systems (root)
	@python3 tools/fresh_root.py $(ARGS)

lock: ## the newest versions of all Python packages into requirements/lock.txt
	@tools/lock.sh

clean: ## remove what the other commands made in the checkout; the lab's cache stays
	@rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
