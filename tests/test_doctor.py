"""`python -m pairfold doctor`: what it says, and when it says no."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pairfold import __main__, doctor
from pairfold.errors import OptionError
from pairfold.settings import describe, settings


def said(lines, title):
    """The lines of one section."""
    start = lines.index(title) + 1
    return "\n".join(line.strip() for line in lines[start : lines.index("", start)])


@pytest.fixture
def quick(monkeypatch):
    """Fewer pairs than the speed estimate usually takes."""
    monkeypatch.setattr(doctor, "_PAIRS_SIDE", 300)


@pytest.mark.usefixtures("quick")
def test_the_report_says_that_pairfold_works():
    lines, works = doctor.report()
    assert works
    assert lines[-1] == "pairfold works here"
    assert "Gpairs/s" in said(lines, "a kernel")
    assert "doctor --torch" in said(lines, "GPU")
    assert "llvmlite" in said(lines, "versions")


@pytest.mark.usefixtures("quick")
def test_the_report_lists_every_setting():
    lines, _ = doctor.report()
    for name, *_ in describe():
        assert name in said(lines, "settings")


@pytest.mark.usefixtures("quick")
def test_settings_and_variables_that_differ_from_the_default_are_shown(monkeypatch):
    monkeypatch.setenv("PAIRFOLD_UNROL", "3")
    with settings(unroll=5, target="baseline"):
        lines, _ = doctor.report()
    shown = said(lines, "settings")
    assert re.search(r"^unroll +5$", shown, re.MULTILINE)
    assert "PAIRFOLD_UNROL is set, but no setting reads it" in shown
    assert "128 bits" in said(lines, "processor")


@pytest.mark.parametrize(
    ("environment", "setting", "words"),
    [
        ({}, 0, "the CPUs that this process may run on"),
        ({"OMP_NUM_THREADS": "3,2"}, 0, "3, from OMP_NUM_THREADS=3,2"),
        ({"OMP_NUM_THREADS": "nonsense"}, 0, "the CPUs that this process may run on"),
        ({"OMP_NUM_THREADS": "3"}, 2, "2, from the setting"),
        ({"PAIRFOLD_NUM_THREADS": "2"}, 2, "2, from PAIRFOLD_NUM_THREADS=2"),
    ],
)
def test_the_number_of_threads_comes_with_its_reason(monkeypatch, environment, setting, words):
    for name in ("OMP_NUM_THREADS", "PAIRFOLD_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with settings(threads=setting):
        assert words in "\n".join(doctor._threads())


@pytest.mark.parametrize("count", [0, 2])
def test_gpus_are_named_and_tried(monkeypatch, count):
    cuda = pytest.importorskip("torch").cuda
    found = SimpleNamespace(name="Some GPU", total_memory=8 << 30, multi_processor_count=7)
    monkeypatch.setattr(cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(cuda, "device_count", lambda: count)
    monkeypatch.setattr(cuda, "get_device_properties", lambda number: found)
    monkeypatch.setattr(doctor, "_version", lambda name: "1.2")
    monkeypatch.setattr(doctor, "_gpu_error", lambda: 3e-7)
    shown = "\n".join(doctor._gpu(ask_torch=True))
    assert "Triton 1.2" in shown
    if count:
        assert "cuda:1  Some GPU, 8192 MB, 7 multiprocessors" in shown
        assert "a kernel ran there: error 3.0e-07" in shown
    else:
        assert "torch sees no GPU(s)\nnot used" in shown


def test_a_kernel_on_a_gpu_is_compared_with_numpy(interpreter):
    with settings(tile="64x64x1"):
        assert doctor._gpu_error() < 1e-6


@pytest.mark.usefixtures("quick")
def test_wrong_numbers_are_noticed(monkeypatch):
    from pairfold.numpy import Genred

    right = Genred.__call__
    monkeypatch.setattr(Genred, "__call__", lambda self, *arrays: 1.001 * right(self, *arrays))
    lines, works = doctor.report()
    assert not works
    assert "the kernel's numbers are wrong" in said(lines, "a kernel")
    assert "does NOT work" in lines[-1]


@pytest.mark.usefixtures("quick")
def test_an_impossible_setting_is_reported_without_a_traceback(monkeypatch):
    def refused():
        raise OptionError("PAIRFOLD_NUM_THREADS must be of type int", found="'x'")

    monkeypatch.setattr(doctor, "thread_count", refused)
    lines, works = doctor.report()
    assert not works
    shown = said(lines, "threads")
    assert "must be of type int" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("works", [True, False])
def test_the_exit_status_says_whether_all_is_well(monkeypatch, capsys, works):
    monkeypatch.setattr(doctor, "report", lambda ask_torch: doctor.Report(["a line"], works))
    assert __main__.main(["doctor"]) == (0 if works else 1)
    assert capsys.readouterr().out == "a line\n"


def test_without_a_command_help_is_shown(capsys):
    assert __main__.main([]) == 0
    assert "doctor" in capsys.readouterr().out


def test_the_command_runs_without_importing_torch():
    code = (
        "import sys\n"
        "from pairfold import doctor\n"
        "doctor._PAIRS_SIDE = 300\n"
        "from pairfold.__main__ import main\n"
        "status = main(['doctor'])\n"
        "sys.exit(status or 2 * ('torch' in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
