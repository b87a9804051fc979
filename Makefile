# Each target sets up what it needs: the first time about two minutes, later a blink. `make help` lists them.
PYTHON ?= python3
INSTALL := @$(PYTHON) scripts/install.py
RUN := .venv/bin
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test soak lint format bench layers proofs sanitize fuzz wheel clean

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## /  make \1\t/p' Makefile | expand -t 18
	@echo "  With another Python: make PYTHON=python3.12 install. Further arguments: make test ARGS='-k ring'."

install:  ## make .venv: the pinned packages, the compiled modules, the commands mdc and mdc-appliance
	$(INSTALL)

demo:  ## Binance and Deribit side by side, made up here: a live view; then counts that must come out even
	$(INSTALL)
	@$(RUN)/python -m appliance.tools.demo $(ARGS)

test:  ## the tests, JOBS=2 at a time
	$(INSTALL) test
	@$(RUN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

soak:  ## an hour of trades with a fault every few seconds (SECONDS=3600): nothing lost, nothing grows
	$(INSTALL) test
	@$(RUN)/python -m tests.system.soak $(or $(SECONDS),3600) binance
	@$(RUN)/python -m tests.system.soak $(or $(SECONDS),3600) deribit

lint:  ## style, types, stubs, layers, Cython
	$(INSTALL) lint test bench
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/python -m mypy.stubtest --ignore-missing-stub --ignore-disjoint-bases $$(find appliance -name '*.pyi' | sed 's/\.pyi$$//; s#/#.#g')
	PATH=$(CURDIR)/$(RUN):$$PATH cython-lint appliance benchmarks
	$(RUN)/python -m scripts.layers --quiet

format:  ## bring the Python into shape
	$(INSTALL) lint
	$(RUN)/ruff check --fix
	$(RUN)/ruff format

bench:  ## the benchmarks, each a comparison within one run
	$(INSTALL) bench
	@$(RUN)/python -m pytest benchmarks $(ARGS)

layers:  ## the picture of the import layers, and the size of each module
	@$(PYTHON) -m scripts.layers

proofs:  ## the model of the ring's protocol in its long form: minutes, 4 GB of memory; needs spin
	$(INSTALL) test
	@MDC_PROOFS=long $(RUN)/python -m pytest tests/proofs/test_protocol.py -rP $(ARGS)

sanitize:  ## the compiled modules under ASan, UBSan and TSan: 10 minutes
	$(INSTALL) test
	@$(RUN)/python -m scripts.sanitize $(ARGS)

fuzz:  ## decoders, ring and journal readers on hostile bytes; needs clang. make SECONDS=600 fuzz: so long for each of four
	$(INSTALL) test fuzz
	@$(RUN)/python -m scripts.fuzz --seconds $(or $(SECONDS),60) $(ARGS)

wheel:  ## dist/*.whl: what an operator installs
	$(INSTALL)
	@rm -rf mdc_appliance.egg-info; find build -path 'build/lib*' -type f ! -name '*.so' -delete  # nothing of an earlier build
	@$(RUN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls -sh dist/*.whl

clean:  ## remove what was built, .venv too; no data
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find appliance benchmarks \( -name '*.so' -o -name '*.cpp' \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
