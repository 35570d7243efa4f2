PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,python)
EXECUTABLE = $$($(PYTHON) -c "import sys; print(sys.executable)")

.PHONY: check test check-math docs bench

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pyright --pythonpath "$(EXECUTABLE)"

test:
	$(PYTHON) -m pytest $(if $(k),-k $(k))

check-math:
	$(PYTHON) tests/sweep_math.py

docs:
	$(PYTHON) -m pytest --doctest-modules src

bench:
	$(PYTHON) benchmarks/run.py --write benchmarks/results.md
