# `make demo` and `make test` need Python (3.10 to 3.13), pip and make; they build .venv when it is missing or stale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test coverage docs docs-check gpu-check lint contracts clean

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/ready
	$(BIN)/affuse demo --seeds $(or $(SEEDS),0)

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

coverage: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

docs: $(VENV)/ready
	$(BIN)/python -m sphinx --quiet --nitpicky --fail-on-warning --fresh-env --write-all -b html docs build/docs

docs-check: $(VENV)/ready
	$(BIN)/python -m pytest -p docs.examples README.md docs

gpu-check: $(VENV)/ready
	$(BIN)/python benchmarks/gpu_check.py run --video-dir $(VIDEOS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) contracts
	cp tests/user_script.py build/house/
	cd build/house && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../mypy -p affuse -m user_script

contracts: $(VENV)/ready
	rm -rf build/house && mkdir -p build/house && cp -r affuse build/house/
	cp -r extract features fuse pipelines build/house/affuse/
	cd build/house && ../../$(BIN)/lint-imports --config ../../pyproject.toml

clean:
	rm -rf $(VENV) demo build *.egg-info
