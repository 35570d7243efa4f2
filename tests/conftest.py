"""What tests share: fixtures that run programs for GPUs without one, or in another process.

They run in several processes beside each other, one for each processor or so. So NumPy's linear
algebra has one thread in each: more would wait for one another, and count as work.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported

import interpreted  # imports Triton before any test does
import products
import pytest
from elsewhere import Installed

from pairfold import settings


def pytest_configure(config: pytest.Config) -> None:
    """Whether tests with the mark `product` are asked for."""
    expression = config.getoption("markexpr")
    others = expression.replace("not product", "")  # "product or not product" asks for all
    products.asked_for = others == expression or "product" in others


def pytest_collection_finish() -> None:
    """Leave what stays out of garbage collections, and have fewer: they were a tenth of the time.

    Half a million objects stay: tests, and the libraries that they import.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # libraries may look at the end for what nobody freed
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """backend="GPU" runs printed programs in Triton's interpreter; some did run in the end."""
    pytest.importorskip("torch", reason="tensors of GPUs are torch's, which is not installed")
    if interpreted.interpreter is None:
        pytest.skip("Triton 3.9 is not installed: it has wheels for Linux alone")  # no interpreter
    monkeypatch.setenv(interpreted.SWITCH, "1")
    interpreted.repair(monkeypatch.setattr)
    before = interpreted.ran
    yield
    assert interpreted.ran > before


@pytest.fixture
def on_gpu(interpreter: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of Genred that names no backend is as for a GPU."""
    from pairfold.frontends.genred import Genred

    call = Genred.__call__

    def there(self: Any, *arrays: Any, backend: str = "GPU", **named: Any) -> Any:
        return call(self, *arrays, backend=backend, **named)

    monkeypatch.setattr(Genred, "__call__", there)


@pytest.fixture(scope="module")
def interpreted_kernels() -> Iterator[None]:
    """Kernels are interpreted by NumPy: for tests of what is asked, not of machine code."""
    with settings(backend="reference"):
        yield


@pytest.fixture
def interpreted_here() -> Iterator[None]:
    """Kernels of one test are interpreted."""
    with settings(backend="reference"):
        yield


@pytest.fixture(scope="session")
def installed() -> Iterator[Installed]:
    """What programs print after `pairfold.dropin.install()`, in one process for all of them."""
    with Installed() as run:
        yield run
