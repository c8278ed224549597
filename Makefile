# Needs git, make and a Python >= 3.12, nothing else: every target first makes the environment .venv.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?=
ARGS ?=

.PHONY: help setup demo test lint format types bench notebooks clean
.DEFAULT_GOAL := help

help:
	@echo "make setup          make the environment $(VENV) (the other targets do it themselves)"
	@echo "make demo           fit a mock galaxy whose truth is known; the report is runs/demo/report.html"
	@echo "make test           run the tests; ARGS='-k halo' chooses among them"
	@echo "make lint           style and formatting (make format mends what it can)"
	@echo "make types          static types"
	@echo "make notebooks      run every notebook"
	@echo "make bench          measure and print the speed: every tests/benchmarks/bench_*.py"
	@echo "make check-NAME     a long proof, tests/benchmarks/check_NAME.py: rewrites docs/results/NAME.md"
	@echo "make clean          remove the environment and everything that was built"
	@echo "PYTHON=/path/to/python chooses the interpreter that $(VENV) is made with"

setup: $(READY)

# The pinned versions are installed. Only on a Python newer than those they were tried on may they
# fail to install; then the newest versions that the lower bounds allow are taken instead.
$(READY): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c "import pip" 2>/dev/null; then \
	    python=$$(sh .ci/find-python $(PYTHON)) || exit 1; \
	    echo "making $(VENV) with $$python"; \
	    "$$python" -m venv --clear $(VENV) || exit 1; \
	fi
	@echo "installing the versions of constraints.txt into $(VENV): a few minutes, once"
	@$(BIN)/python -m pip install -q --prefer-binary -c constraints.txt -e '.[dev]' || { \
	    $(BIN)/python -c "import sys; sys.exit(sys.version_info < (3, 14))" \
	    && echo "the pinned versions do not install on this Python: taking the newest instead" \
	    && $(BIN)/python -m pip install -q --prefer-binary -e '.[dev]'; }
	@touch $@

demo: $(READY)
	$(BIN)/bayesdust demo --out runs/demo --overwrite $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n auto $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/mypy

# Notebooks are kept as jupytext .py files and run from a scratch copy, so that no output is stored.
notebooks: $(READY)
	@rm -rf build/notebooks && mkdir -p build/notebooks
	@set -e; for file in notebooks/*.py; do \
	    [ -e "$$file" ] || { echo "there are no notebooks yet"; exit 0; }; \
	    $(BIN)/jupytext --quiet --to ipynb -o build/notebooks/$$(basename $$file .py).ipynb $$file; \
	done; \
	[ ! -e "$$file" ] || $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 --nbmake-kernel=python3 \
	    -p no:cacheprovider build/notebooks

bench: $(READY)
	@set -e; for file in tests/benchmarks/bench_*.py; do \
	    [ -e "$$file" ] || { echo "there are no benchmarks yet"; exit 0; }; \
	    echo "== $$file"; $(BIN)/python $$file $(ARGS); \
	done

check-%: $(READY)
	@[ -f tests/benchmarks/check_$(subst -,_,$*).py ] || { echo "there is no check named $*"; exit 2; }
	$(BIN)/python tests/benchmarks/check_$(subst -,_,$*).py $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
