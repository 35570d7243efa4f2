"""The benchmark of GPUs, on the CPU: it runs whole, notices what is wrong, keeps to its budget."""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pairfold.torch  # noqa: E402
from benchmarks import gpu, gpu_calls, gpu_correct, gpu_limits, gpu_peers  # noqa: E402
from benchmarks.gpu_cases import TIMED  # noqa: E402
from benchmarks.gpu_measure import Budget, Device, Speed  # noqa: E402
from benchmarks.harness import OURS, Result  # noqa: E402
from pairfold.ops.reductions import REDUCTIONS  # noqa: E402

DRY = ("--device", "cpu", "--quick")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Tiny tensors on one thread; caches of compilers as they were."""
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, "unused")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def runs(monkeypatch):
    """The runs that the program makes."""
    made = []
    prepare = gpu.prepare

    def kept(*arguments):
        made.append(prepare(*arguments))
        return made[-1]

    monkeypatch.setattr(gpu, "prepare", kept)
    return made


def wrong_by(share):
    """Genred whose results are wrong by a share."""

    class Wrong(pairfold.torch.Genred):
        def __call__(self, *args, **options):
            return super().__call__(*args, **options) * (1 + share)

    return Wrong


# -- the whole of it -------------------------------------------------------------------------------


def test_a_dry_run_has_every_case_and_peer_or_a_reason(tmp_path, runs):
    target = tmp_path / "gpu.md"
    assert gpu.main([*DRY, "--reductions", "^Sum$", "--write", str(target)]) == 0
    text, speed = target.read_text(), runs[0].speed
    assert "Wrong: nothing." in text
    reasons = {(case, peer) for case, peer, _ in speed.reasons}
    for name in TIMED:
        assert f"- **{name}**: " in text
        assert f"\n| {name} | " in text.partition("### Shares")[2]
        assert speed.results[name][OURS].error is not None
        for peer in gpu_peers.table(1):
            measured = speed.results[name].get(peer, Result(peer))
            assert (measured.median > 0) != ((name, peer) in reasons), (name, peer)
    timed = {peer for found in speed.results.values() for peer in found}
    assert timed == set(gpu_peers.table(1)) - {gpu_peers.COMPILING, gpu_peers.PYKEOPS}
    assert {f"- {peer}, " in text for peer in (gpu_peers.COMPILING, gpu_peers.PYKEOPS)} == {True}
    for title in ("Correctness", "Calls", "Speed", "Nearest neighbours"):
        assert f"# {title}\n" in text
    for program in ("10 nearest", "Gaussian sum by LazyTensor"):
        assert f"\n| {program} | " in text


def test_a_wrong_reduction_fails_the_run_and_is_not_timed(monkeypatch, runs, capsys):
    monkeypatch.setattr(pairfold.torch, "Genred", wrong_by(1e-3))
    parts = ["--parts", "correctness,speed", "--cases", "^gaussian.1e4$", "--peers", "none"]
    assert gpu.main([*DRY, "--reductions", "^Sum$", *parts]) == 1
    run, shown = runs[0], capsys.readouterr()
    assert [c.right for c in run.checks] == [False] * 4
    assert run.speed.results == {}
    assert "not timed: Sum is wrong" in shown.out
    assert "wrong: Sum, axis 1, float32" in shown.err


def test_a_wrong_result_at_speed_fails_the_run(monkeypatch, runs, capsys):
    monkeypatch.setattr(pairfold.torch, "Genred", wrong_by(1e-3))
    parts = ["--parts", "calls,speed", "--cases", "^knn.dim3|^gaussian.1e4$", "--peers", "none"]
    assert gpu.main([*DRY, *parts]) == 1
    found = runs[0].speed.results
    assert "wrong: error 1.0e-03" in found["gaussian.1e4"][OURS].failure
    assert not found["gaussian.1e4"][OURS].samples
    assert any(m.startswith("Gaussian sum: wrong") for m in runs[0].mistakes)
    assert "failed" in capsys.readouterr().out


def test_the_exit_status_is_0_where_nothing_is_wrong(capsys):
    assert gpu.main([*DRY, "--parts", "correctness", "--reductions", "^ArgMin$"]) == 0
    assert "| ArgMin | 0.0e+00 |" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_program_says_so():
    with pytest.raises(SystemExit, match="no GPU here"):
        gpu.main([])


def test_llvmlite_is_not_needed_to_begin(monkeypatch):
    assert gpu.without_llvmlite() == ""
    for name in ("llvmlite", "llvmlite.binding"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "Without llvmlite" in gpu.without_llvmlite()
    assert sys.modules["llvmlite"].binding is sys.modules["llvmlite.binding"]


# -- correctness -----------------------------------------------------------------------------------


def test_every_public_reduction_is_checked():
    public = {row.name for row in REDUCTIONS.values() if not row.internal}
    assert set(gpu_correct.DENSE) == public
    tasks = list(gpu_correct.tasks())
    assert {t.name for t in tasks} == public
    assert len({(t.axis, t.dtype) for t in tasks}) == 4


@pytest.mark.parametrize(
    ("name", "place", "amount"),
    [("SumSoftMaxWeight", "b", 1e-3), ("ArgMin", "x", 1.0), ("Count", "y", 1.0), ("Max", "p", 0.1)],
)
def test_a_wrong_input_is_noticed_by_the_checks(monkeypatch, name, place, amount):
    task = next(t for t in gpu_correct.tasks() if t.name == name)
    right = gpu_correct.reduced
    monkeypatch.setattr(
        gpu_correct, "reduced", lambda task, v: right(task, {**v, place: v[place] + amount})
    )
    found = gpu_correct.Checker(Device(torch, "cpu"), (30, 23)).check(task)
    assert not found.failure
    assert not found.right


def test_wrong_gradients_alone_are_noticed(monkeypatch):
    task = next(t for t in gpu_correct.tasks() if t.name == "Min")
    right = gpu_correct.reduced

    def cut(task, v):
        (result,) = right(task, v)
        return (result.detach() + (result - result.detach()) * 1.001,)

    monkeypatch.setattr(gpu_correct, "reduced", cut)
    found = gpu_correct.Checker(Device(torch, "cpu"), (30, 23)).check(task)
    assert found.error < 1e-6
    assert found.gradient is not None
    assert not found.right


def test_an_exception_is_a_failure_with_its_first_line(monkeypatch):
    def broken(task, v):
        raise RuntimeError("no such device\nmore")

    monkeypatch.setattr(gpu_correct, "reduced", broken)
    task = next(iter(gpu_correct.tasks()))
    found = gpu_correct.Checker(Device(torch, "cpu"), (30, 23)).check(task)
    assert found.failure == "RuntimeError: no such device"
    assert not found.right
    assert "**failed**" in gpu_correct.text([found], [], (30, 23))


def test_indices_out_of_range_are_infinite_errors(monkeypatch):
    task = next(t for t in gpu_correct.tasks() if t.name == "ArgMin")
    right = gpu_correct.reduced
    monkeypatch.setattr(gpu_correct, "reduced", lambda task, v: (right(task, v)[0] + 23,))
    found = gpu_correct.Checker(Device(torch, "cpu"), (30, 23)).check(task)
    assert found.error == math.inf


# -- budget ----------------------------------------------------------------------------------------


def clock(step):
    """A clock that goes on by so much at each look."""
    now = [0.0]

    def look():
        now[0] += step
        return now[0]

    return look


def test_a_budget_ends():
    budget = Budget(10, clock(1))  # 1 at the start
    assert budget.allows(7)  # 2
    assert not budget.allows(8.5)  # 3
    part = budget.part(0.5)  # 4, starts at 5, has 3.5
    assert part.allows(2)  # 6
    assert not part.allows(2)  # 7


def test_what_the_budget_does_not_reach_is_listed(capsys):
    assert gpu.main([*DRY, "--budget", "0", "--reductions", "^(Sum|Min)$"]) == 0
    shown = capsys.readouterr().out
    assert "- Sum, axis 1, float32: not reached" in shown
    assert "- all peers, not reached: every case" in shown


class Sleeper:
    """A peer that says how often it was asked."""

    def __init__(self):
        self.asked = []

    def prepare(self, case, arrays):
        self.asked.append(case.name)
        return lambda: [arrays["x"][:, :1] * 0]


def speed(peer, sizes=lambda timed: (20, 20), budget=100.0, peers=("torch products",)):
    makers = {name: lambda: peer for name in peers}
    return Speed(Device(torch, "cpu"), makers, {}, Budget(budget), sizes, 2, 1e-4, frozenset(),
                 lambda text: None)  # fmt: skip


def test_a_peer_that_would_take_too_long_is_estimated_from_the_smaller_size():
    peer = Sleeper()
    measured = speed(peer, lambda timed: (20, 20) if timed.size == "1e4" else (20, 200))
    measured.run([TIMED["gaussian.1e4"]])
    assert measured.results["gaussian.1e4"]["torch products"].samples
    measured.results["gaussian.1e4"]["torch products"].samples = [3.0]
    measured.results["gaussian.1e4"]["torch products"].disturbed = [False]
    measured.run([TIMED["gaussian.1e5"]])
    assert peer.asked == ["gaussian.1e4"]
    assert measured.results["gaussian.1e5"]["torch products"].median == pytest.approx(30)
    assert measured.reasons[-1] == ("gaussian.1e5", "torch products", "skipped: estimated 30 s")


def test_a_peer_that_fails_is_listed_and_the_others_go_on():
    class Broken(Sleeper):
        def prepare(self, case, arrays):
            raise MemoryError("CUDA out of memory.\nmore")

    measured = speed(Broken())
    measured.peers["torch cdist"] = Sleeper
    measured.run([TIMED["gaussian.1e4"]])
    found = measured.results["gaussian.1e4"]
    assert found["torch products"].failure == "MemoryError: CUDA out of memory."
    assert found["torch cdist"].median > 0
    assert measured.mistakes == []
    ours = speed(Broken(), peers=(OURS,))
    ours.run([TIMED["gaussian.1e4"]])
    assert ours.mistakes == ["gaussian.1e4: MemoryError: CUDA out of memory."]


# -- peers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "why"), [("pykeops.torch.generic", ""), ("pairfold.torch", "pairfold stands")]
)
def test_the_drop_in_is_not_taken_for_pykeops(monkeypatch, owner, why):
    module = types.ModuleType("pykeops.torch")
    module.Genred = type("Genred", (), {"__module__": owner})
    monkeypatch.setitem(sys.modules, "pykeops", types.ModuleType("pykeops"))
    monkeypatch.setitem(sys.modules, "pykeops.torch", module)
    assert gpu_peers.without_pykeops().startswith(why)
    assert bool(gpu_peers.without_pykeops()) == bool(why)


# -- limits ----------------------------------------------------------------------------------------


def test_shares_of_a_made_up_chip():
    rates = gpu_limits.Rates(fma=100, fma64=50, special=10, tensor=1000, tensor16=4000, issue=120)
    chip = gpu_limits.Chip("toy", "sm_0", 10, 1e9, 1e12, rates)
    cost = gpu_limits.Cost(fma=8, issue=9.5, special=1, tensor=256)
    found = gpu_limits.shares(chip, cost, "float32", 1e9, 2e9, 0.01)
    assert found == pytest.approx(
        {"FMA": 0.8, "special": 10.0, "tensor": 2.56, "memory": 0.2, "issue": 9.5e9 / 1.2e10}
        | {"special": 1e9 / 1e11 / 0.01, "tensor": 256e9 / 1e13 / 0.01, "issue": 9.5e11 / 1.2e12}
    )
    wide = gpu_limits.shares(chip, cost, "float64", 1e9, 2e9, 0.01)
    assert wide["FMA"] == pytest.approx(1.6)
    assert math.isnan(wide["tensor"])
    short = gpu_limits.shares(chip, cost, "bfloat16", 1e9, 2e9, 0.01)
    assert short["tensor"] == pytest.approx(found["tensor"] / 4)
    assert math.isnan(gpu_limits.shares(chip, gpu_limits.Cost(3, 4), "float32", 1, 1, 1)["special"])


@pytest.mark.parametrize(
    ("architecture", "units", "clock", "dtype", "what", "published"),
    [
        ("sm_80", 108, 1.41e9, "float32", "FMA", 19.5e12 / 2),
        ("sm_80", 108, 1.41e9, "float32", "tensor", 156e12),
        ("sm_90", 132, 1.98e9, "float32", "FMA", 67e12 / 2),
        ("sm_90", 132, 1.98e9, "float64", "FMA", 33.5e12 / 2),
        ("sm_90", 132, 1.83e9, "bfloat16", "tensor", 989e12),
        ("gfx942", 304, 2.1e9, "float32", "FMA", 163.4e12 / 2),
    ],
)
def test_peaks_agree_with_data_sheets(architecture, units, clock, dtype, what, published):
    rates = gpu_limits.RATES[architecture]
    chip = gpu_limits.Chip("", architecture, units, clock, 1.0, rates)
    assert chip.peaks(dtype)[what] == pytest.approx(published, rel=0.01)


class Events:
    """torch.cuda with a chip of 2 GHz that copies 1 GiB in 1 ms."""

    def __init__(self, told):
        self.properties = types.SimpleNamespace(
            name="Toy 9000", major=9, minor=0, multi_processor_count=7, total_memory=2**36, **told
        )
        self.now = 0.0

    def get_device_properties(self, device):
        return self.properties

    def synchronize(self):
        pass

    def set_device(self, device):
        self.current = device

    def _sleep(self, cycles):
        self.now += cycles / 2e9

    def Event(self, enable_timing):
        cuda = self

        class Event:
            def record(self):
                self.at = cuda.now

            def synchronize(self):
                pass

            def elapsed_time(self, other):
                return 1e3 * (other.at - self.at)

        return Event()


def test_a_device_tells_its_clock_and_bandwidth_or_they_are_measured():
    told = {"clock_rate": 1_980_000, "memory_clock_rate": 3_201_000, "memory_bus_width": 6144}
    for known in (told, {}):
        cuda = Events(known)

        class Copied:
            def copy_(self, source, cuda=cuda):
                cuda.now += 1e-3

        fake = types.SimpleNamespace(
            cuda=cuda, uint8=None, zeros=lambda *a, **k: None, empty_like=lambda t: Copied()
        )
        chip, says = gpu_limits.chip(fake, types.SimpleNamespace(type="cuda"))
        assert chip.clock == pytest.approx(2e9)
        assert (chip.architecture, chip.units) == ("sm_90", 7)
        assert chip.rates is gpu_limits.RATES["sm_90"]
        bandwidth = 2 * 3.201e9 * 6144 / 8 if known else 2 * 2**30 / 1e-3
        assert chip.bandwidth == pytest.approx(bandwidth)
        assert "2 GHz while spinning" in says["clock"]


def test_a_gpu_is_timed_by_its_events():
    cuda = Events({})
    fake = types.SimpleNamespace(cuda=cuda, device=lambda name: types.SimpleNamespace(type=name))
    device = Device(fake, "cuda")
    assert cuda.current is device.device
    assert device.seconds(lambda: cuda._sleep(4e6), 5) == pytest.approx(2e-3)


def test_first_calls_are_of_formulas_that_nothing_else_has():
    others = {timed.case.formula for timed in TIMED.values()}
    assert not others & {formula for formula, _, _ in gpu_calls._FORMULAS.values()}
