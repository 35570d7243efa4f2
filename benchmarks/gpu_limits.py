"""What a GPU can do in a second, and the share of it that a case reaches.

Operations per clock and multiprocessor are from NVIDIA's CUDA C++ Programming Guide ("Throughput of
Native Arithmetic Instructions": float32, float64 and special functions), and from the whitepapers
of the A100, GA102, Ada, H100 and Blackwell chips (tensor cores, dense, with float32 sums). One
warp-instruction of 32 lanes is issued per clock on each of four schedulers. Those of the MI300X are
from AMD's CDNA 3 whitepaper. What is assumed, and not read there, is said in `Rates.assumed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LIMITS = ("FMA", "special", "tensor", "memory", "issue")


@dataclass(frozen=True)
class Rates:
    """Operations per clock and multiprocessor.

    `fma`, `fma64`: multiply-adds; `special`: exponentials and the like; `tensor`, `tensor16`:
    floating-point operations of matrix products, TF32 and 16 bits; `issue`: instructions of a lane.
    """

    fma: int
    fma64: int
    special: int
    tensor: int
    tensor16: int
    issue: int = 128
    assumed: str = ""


_GEFORCE = "data-centre tensor rates; GeForce cards have half of them with float32 sums"
RATES = {
    "sm_80": Rates(64, 32, 16, 1024, 2048),
    "sm_86": Rates(128, 2, 16, 512, 1024, assumed=_GEFORCE),
    "sm_89": Rates(128, 2, 16, 512, 1024, assumed=_GEFORCE),
    "sm_90": Rates(128, 64, 16, 2048, 4096),
    "sm_100": Rates(128, 64, 16, 4096, 8192, assumed="all, from the B200's published peaks"),
    "gfx942": Rates(128, 64, 16, 1024, 2048, 64,
                    assumed="special functions at a quarter of 64 lanes; one instruction for 64 "
                            "lanes per clock, although float32 pairs double the multiply-adds"),
}  # fmt: skip


@dataclass(frozen=True)
class Chip:
    """A device: multiprocessors, clock in Hz, bytes per second, rates where they are known."""

    name: str
    architecture: str
    units: int
    clock: float = math.nan
    bandwidth: float = math.nan
    rates: Rates | None = None

    def peaks(self, dtype: str) -> dict[str, float]:
        """The largest rate of everything that is limited, per second."""
        found = dict.fromkeys(LIMITS, math.nan) | {"memory": self.bandwidth}
        if self.rates is None:
            return found
        rates, each = self.rates, self.units * self.clock
        wide, short = dtype == "float64", dtype in ("float16", "bfloat16")
        tensor = math.nan if wide else rates.tensor16 if short else rates.tensor
        return found | {
            "FMA": each * (rates.fma64 if wide else rates.fma),
            "special": each * rates.special,
            "tensor": each * tensor,
            "issue": each * rates.issue,
        }


@dataclass(frozen=True)
class Cost:
    """The least work of one pair, counted by hand.

    `fma`: operations of the floating-point pipe; `special`: exponentials; `tensor`: floating-point
    operations where matrix products do the work; `issue`: instructions, of the whole loop.
    """

    fma: float
    issue: float
    special: float = 0.0
    tensor: float = 0.0


def shares(
    chip: Chip, cost: Cost, dtype: str, pairs: float, moved: float, seconds: float
) -> dict[str, float]:
    """The share of each limit that so many pairs and so many bytes in this time are."""
    work = {
        "FMA": pairs * cost.fma,
        "special": pairs * cost.special,
        "tensor": pairs * cost.tensor,
        "memory": moved,
        "issue": pairs * cost.issue,
    }
    peaks = chip.peaks(dtype)
    return {name: work[name] / peaks[name] / seconds if work[name] else math.nan for name in LIMITS}


def _guarded(read: Callable[[], float]) -> float:
    """A number that the device or this version of torch may not tell."""
    try:
        return float(read())
    except Exception:
        return math.nan


def _timed(torch: Any, work: Callable[[], Any]) -> float:
    """Seconds of the second call, on the device's clock."""
    work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def _spin(torch: Any, cycles: int = 200_000_000) -> float:
    """The clock that a kernel sees which waits for so many cycles."""
    return cycles / _timed(torch, lambda: torch.cuda._sleep(cycles))


def copied(torch: Any, device: Any) -> float:
    """Bytes per second, read and written, of a large copy."""

    def measured() -> float:
        length = min(2**30, torch.cuda.get_device_properties(device).total_memory // 16)
        source = torch.zeros(length, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return 2 * length / _timed(torch, lambda: target.copy_(source))

    return _guarded(measured)


def chip(torch: Any, device: Any) -> tuple[Chip, dict[str, str]]:
    """The device, and what is known of its clock and memory, as text."""
    if device.type != "cuda":
        return Chip("the CPU", "cpu", 1), {}
    properties = torch.cuda.get_device_properties(device)
    architecture = str(getattr(properties, "gcnArchName", "")).split(":")[0]
    if not architecture.startswith("gfx"):
        architecture = f"sm_{properties.major}{properties.minor}"
    told = _guarded(lambda: 1e3 * properties.clock_rate)
    now = _guarded(lambda: 1e6 * torch.cuda.clock_rate())
    spun = _guarded(lambda: _spin(torch))
    bus = _guarded(lambda: 2 * 1e3 * properties.memory_clock_rate * properties.memory_bus_width / 8)
    moved = copied(torch, device)
    clock = next((c for c in (spun, told, now) if _sensible(c)), math.nan)
    bandwidth = max((b for b in (bus, moved) if b > 0), default=math.nan)
    says = {
        "clock": f"{_giga(spun)} GHz while spinning, {_giga(told)} GHz as told, "
        f"{_giga(now)} GHz at the start; limits use {_giga(clock)} (a loaded chip may be slower)",
        "memory bandwidth": f"{_giga(bus)} GB/s as told, {_giga(moved)} GB/s copied",
    }
    rates = RATES.get(architecture)
    if rates is None:
        says["rates"] = f"those of {architecture} are not known"
    elif rates.assumed:
        says["rates"] = f"assumed: {rates.assumed}"
    units = properties.multi_processor_count
    return Chip(properties.name, architecture, units, clock, bandwidth, rates), says


def _sensible(clock: float) -> bool:
    """Whether a number can be the clock of a GPU."""
    return 2e8 < clock < 5e9


def _giga(value: float) -> str:
    return "?" if math.isnan(value) else f"{value / 1e9:.4g}"
