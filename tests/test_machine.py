"""What is compiled for: the families of processors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pairfold.backends.llvm import machine as module
from pairfold.errors import OptionError, UnsupportedError


def described(
    monkeypatch: pytest.MonkeyPatch, triple: str, features: str = "", system: str = "linux"
) -> Any:
    """`machine` as it would be there."""
    names = [name.lstrip("+") for name in features.split(",") if name]

    class Features(dict[str, bool]):
        def flatten(self) -> str:
            return features

    llvm = SimpleNamespace(
        get_process_triple=lambda: triple,
        get_host_cpu_name=lambda: "some-cpu",
        get_host_cpu_features=lambda: Features(dict.fromkeys(names, True)),
    )
    monkeypatch.setattr(module, "_llvm", lambda: llvm)
    monkeypatch.setattr(module.sys, "platform", system)
    return module.machine.__wrapped__


@pytest.mark.parametrize("family", ["s390x", "riscv64", "powerpc64le", "loongarch64"])
def test_what_is_not_known_is_given_no_instructions_of_others(
    monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    machine = described(monkeypatch, f"{family}-unknown-linux-gnu", "+vector")
    assert machine("native").has == {"vector"}
    assert machine("baseline").has == frozenset()
    with pytest.raises(OptionError, match="needs an x86 processor"):
        machine("avx2")


def test_an_aarch64_processor_is_what_the_system_says_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(word: int) -> int:
        return {16: 1 << 20 | 1 << 8, 26: 1 << 1}[word]

    machine = described(monkeypatch, "aarch64-unknown-linux-gnu", "+neon,+crc")
    with monkeypatch.context() as patch:
        patch.setattr(module.ctypes, "CDLL", lambda name: SimpleNamespace(getauxval=read))
        found = machine("native")
    assert found.has == {"neon", "fma", "crc", "dotprod", "lse", "sve2"}
    assert found.features == "+neon,+crc,+dotprod,+lse,+sve2"
    assert (found.vector_bytes, found.registers) == (16, 32)
    assert machine("baseline").has == {"neon", "fma"}


def test_macs_and_windows_are_not_asked_for_words_of_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    mac = described(monkeypatch, "arm64-apple-darwin24.1.0", system="darwin")("native")
    assert mac.has == {"neon", "fma", "dotprod", "lse"}
    windows = described(monkeypatch, "aarch64-pc-windows-msvc", "+dotprod", system="win32")(
        "native"
    )
    assert windows.has == {"neon", "fma", "dotprod"}


def test_a_process_of_32_bits_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.ctypes, "sizeof", lambda kind: 4)
    with pytest.raises(UnsupportedError, match="64 bits only"):
        module.machine.__wrapped__("native")
