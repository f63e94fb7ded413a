# Needs nothing but make and python3; see scripts/setup.sh for what it installs.
.DEFAULT_GOAL := help
.PHONY: help demo test lint format screenshots clean
BIN := .venv/bin

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' Makefile

demo:  ## Train on a few slices of a real head scan, label the whole, write pictures and a report
	@scripts/setup.sh demo
	$(BIN)/napari-unet3d demo --out demo-output

test: lint  ## Check the code and run all tests, windows on a virtual display
	@if command -v xvfb-run >/dev/null; then set -- xvfb-run -a -s "-screen 0 1400x900x24"; fi; \
	set -x; "$$@" $(BIN)/python -m pytest

lint:  ## Check style, types and who imports whom
	@scripts/setup.sh test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format:  ## Put the code into the common form
	@scripts/setup.sh test
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

screenshots:  ## Take the pictures of the documentation anew, on a virtual display
	@scripts/setup.sh test
	xvfb-run -a -s "-screen 0 1400x900x24" $(BIN)/python scripts/screenshots.py

clean:  ## Remove what builds and tests leave behind; .venv stays
	rm -rf build dist demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +
