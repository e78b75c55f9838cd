# Every target sets up what it needs first (tools/setup), on a machine that has nothing yet.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin

.PHONY: help setup demo test check bench clean

help: ## show this
	@awk -F ' *## *' '/^[a-z]+:.*##/ { sub(/:.*/, "", $$1); printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what the daemon needs, and the package into .venv
	@tools/setup run

demo: ## build sample backups, mount and browse them (KEEP=1 leaves them mounted)
	@tools/setup run demo
	@KEEP=$(KEEP) demo/run

test: ## run every test (RING=pure, real or mounted for one ring; ARGS=... for pytest)
	@tools/setup run $(if $(filter pure,$(RING)),,tests rare)
	@pytest $(if $(RING),tests/$(RING),tests) $(ARGS)

check: ## check format, lint, types and imports, and run the pure tests: under a minute
	@tools/setup run
	ruff format --check
	ruff check
	mypy -p restorefs -p bench
	lint-imports --config setup.cfg
	for script in tools/setup demo/run demo/sample .ci/run systemd/mount.fuse.restorefs; do bash -n $$script || exit 1; done
	pytest -q tests/pure

bench: ## measure side by side with other ways to read an image (ARGS="--quick --json")
	@tools/setup run bench
	@python -m bench $(ARGS)

clean: ## remove everything that the targets above left in this folder
	rm -rf .venv build dist bench/results *.egg-info
	find restorefs -name '*.so' -delete
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
