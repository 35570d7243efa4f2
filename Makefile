PYTHON ?= $(firstword $(wildcard .venv/bin/python .venv/Scripts/python.exe) python)
EXECUTABLE = $$($(PYTHON) -c "import sys; print(sys.executable)")

.PHONY: check test test-all planted test-targets test-aarch64 test-oldest test-newest sdist wheel attack fuzz fuzz-gpu fuzz-api check-math \
	docs docs-test operations bench bench-gpu gpu-code

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pyright --pythonpath "$(EXECUTABLE)"

test:
	$(PYTHON) -m pytest -n 2 --dist worksteal $(if $(k),-k $(k))

# All combinations of options, too.
test-all:
	$(PYTHON) -m pytest -n 2 --dist worksteal -m "product or not product"

# Faults planted into a copy, one at a time: each is to be noticed.
planted:
	$(PYTHON) tests/planted.py

# Wheels and source distributions of both packages, installed without anything else.
wheel:
	$(PYTHON) tests/wheel.py

# The same tests with fewer instructions than the processor has.
narrower = $(PYTHON) -m pytest -n 2 --dist worksteal -m "not any_target and not product" tests/test_backends.py tests/test_torch.py
test-targets:
	PAIRFOLD_TARGET=avx2 $(narrower)
	PAIRFOLD_TARGET=baseline $(narrower)

# All tests with the oldest versions that pyproject.toml allows, and with the newest there are, each
# in an environment of its own; make test-newest NEWEST=python3.14
OLDEST ?= python3.10
NEWEST ?= python3.13
test-oldest:
	$(OLDEST) -m venv .venv-oldest
	.venv-oldest/bin/pip install -c constraints-oldest.txt -e ".[test,torch,plot]" -e ./dropin
	.venv-oldest/bin/python -m pytest -n 2 --dist worksteal -p no:cacheprovider
test-newest:
	$(NEWEST) -m venv .venv-newest
	.venv-newest/bin/pip install --upgrade -e ".[test,torch,plot]" -e ./dropin
	.venv-newest/bin/python -m pytest -n 2 --dist worksteal -p no:cacheprovider

# What git tracks, as a source distribution whose tests run.
sdist:
	$(PYTHON) tests/source_distribution.py

# The core of the tests on AArch64, emulated; make test-aarch64 PROCESSORS=max TESTS=tests/test_sizes.py
test-aarch64:
	PYTHON="$(EXECUTABLE)" bash tests/aarch64.sh

fuzz:
	cd tests && $(EXECUTABLE) fuzz.py --count 20000 --seed 1000

# Minutes of what should break it: interrupts, strange memory, whatever else is in tests/attack_*.py.
attack:
	for script in tests/attack_*.py; do $(EXECUTABLE) $$script || exit 1; done

# The same as programs for GPUs, in Triton's interpreter.
fuzz-gpu:
	cd tests && $(EXECUTABLE) fuzz.py --gpu --count 1000 --seed 1000

# Random programs over the whole interface against dense torch, on all processors.
fuzz-api:
	PYTHONPATH=src $(EXECUTABLE) tests/fuzz_api.py --count 20000 $(options)

check-math:
	$(PYTHON) tests/sweep_math.py

# The site, into docs/_build/html, with the gallery, whose programs run; a warning is an error, and so
# is a link that leads nowhere.
docs:
	$(PYTHON) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(PYTHON) docs/links.py docs/_build/html

# Examples in docstrings, and every block of Python on every page.
docs-test:
	$(PYTHON) -m pytest --doctest-modules src
	$(PYTHON) -m pytest -p docs.blocks -p no:doctest docs README.md CONTRIBUTING.md

# The pages of operations and of settings, from their rows.
operations:
	PYTHONPATH=src $(PYTHON) -m pairfold operations > docs/operations.md
	PYTHONPATH=src $(PYTHON) -m pairfold settings > docs/reference/settings.md

# All cases beside all peers; make bench options="--rounds 3 --cache DIR"
bench:
	$(PYTHON) benchmarks/run.py --write benchmarks/results.md $(options)

# Correctness, calls, speed and the chip's limits; make bench-gpu options="--budget 300"
bench-gpu:
	$(PYTHON) benchmarks/gpu.py --write benchmarks/gpu.md $(options)

# All kernels of the GPU benchmark as machine code for three GPUs, none of which needs to be there.
gpu-code:
	PYTHONPATH=src $(EXECUTABLE) tests/gpu_code.py
