"""The program that runs PyKeOps' own tests: what it takes out of archives, how it counts."""

from __future__ import annotations

import importlib.util
import io
import sys
import tarfile
import xml.etree.ElementTree as xml
import zipfile
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[1] / "conformance" / "pykeops_suite.py"
FILES = {
    "pykeops/test/test_a.py": True,
    "keopscore/test/test_op.py": True,
    "pykeops/test/conv2d.py": False,
    "pykeops/sandbox/test_b.py": False,
    "pykeops/test/test_c.txt": False,
    "pykeops/test/../../../test_d.py": False,
    "/pykeops/test/test_e.py": False,
    "other/pykeops/test/test_f.py": False,
}


@pytest.fixture(scope="module")
def suite():
    spec = importlib.util.spec_from_file_location("pykeops_suite", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("kind", ["wheel", "sources"])
def test_only_tests_leave_an_archive_and_none_leaves_its_folder(suite, tmp_path, kind):
    folder = tmp_path / "some" / "place" / "tests"
    folder.mkdir(parents=True)
    if kind == "wheel":
        archive = tmp_path / "pykeops-2.3.whl"
        with zipfile.ZipFile(archive, "w") as made:
            for name in FILES:
                made.writestr(name, name)
    else:
        archive = tmp_path / "pykeops-2.3.tar.gz"
        with tarfile.open(archive, "w:gz") as made:
            for name in FILES:
                member = tarfile.TarInfo(f"pykeops-2.3/{name}")
                member.size = len(name)
                made.addfile(member, io.BytesIO(name.encode()))
            link = tarfile.TarInfo("pykeops-2.3/pykeops/test/test_link.py")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            made.addfile(link)
    for name, content in suite.unpacked(archive):
        suite.keep(name, lambda content=content: content, folder)
    wanted = {name.rpartition("/")[2]: name for name, taken in FILES.items() if taken}
    assert {path.name: path.read_text() for path in folder.iterdir()} == wanted
    assert sorted(p.name for p in tmp_path.rglob("test_*")) == sorted(wanted)


REPORT = """<testsuites><testsuite>
<testcase name="one" time="1.5"/>
<testcase name="two" time="0.5"><skipped/></testcase>
<testcase name="three"><failure>E   ValueError: no | good</failure></testcase>
<testcase name="four"><error>E   ImportError: gone</error></testcase>
</testsuite></testsuites>"""


def test_results_are_counted_and_written_down(suite):
    outcome = suite.Outcome("test_a")
    suite.count(xml.fromstring(REPORT), outcome)
    counts = (outcome.passed, outcome.skipped, outcome.failed, outcome.errors, outcome.seconds)
    assert counts == (1, 1, 1, 1, 2.0)
    page = "\n".join(suite.table([outcome], "2.3"))
    assert "1 tests pass, 1 are skipped (they need a GPU), 1 fail, 1 cannot be run." in page
    assert "| test_a | three: ValueError: no \\| good |" in page


def test_the_count_in_the_readme_is_that_of_the_page():
    root = PROGRAM.parents[1]
    first = (root / "conformance" / "pykeops_suite.md").read_text().splitlines()[2]
    passed, skipped = first.split()[0], first.split()[3]
    assert first.endswith("0 fail, 0 cannot be run.")
    readme = " ".join((root / "README.md").read_text().split())
    assert f"{passed} pass, and the {skipped} that need a GPU skip themselves" in readme
