"""Build both distributions, install their wheels alone, and use them: `make wheel`.

Needs the packages `build`, `packaging` and `twine`, and an index, for numpy and llvmlite.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata
from source_distribution import ROOT, copied, tracked

# The folders with the sources of each distribution, and the packages in its wheel.
SOURCES = {"pairfold": ROOT / "src", "pairfold-pykeops": ROOT / "dropin" / "src"}
PACKAGES = {"pairfold": {"pairfold"}, "pairfold-pykeops": {"pykeops", "keopscore"}}
# All that they need; extras need more.
NEEDED = {"pairfold": {"numpy", "llvmlite"}, "pairfold-pykeops": {"pairfold"}}

PROGRAM = """
import importlib.util
import sys
from importlib.metadata import version
import numpy as np
import pairfold
from pykeops.numpy import Genred

x, y, b = np.random.rand(17, 3), np.random.rand(23, 3), np.random.rand(23, 1)
found = Genred("Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1)(x, y, b)
dense = np.exp(-((x[:, None] - y) ** 2).sum(-1)) @ b
np.testing.assert_allclose(found, dense, rtol=1e-12)
assert importlib.util.find_spec("torch") is None and sys.prefix in pairfold.__file__
assert pairfold.__version__ == version("pairfold") == sys.argv[1]
print("pairfold", pairfold.__version__, "without torch")
"""


def built(source: Path, folder: Path) -> list[Path]:
    """The wheel and the source distribution of a project."""
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("*"))


def metadata_in_wheel(wheel: Path) -> Metadata:
    """What a wheel says of itself, which must be valid."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Metadata.from_email(archive.read(name))


def metadata_in_source(archive: Path) -> Metadata:
    """What a source distribution says of itself, which must be valid."""
    with tarfile.open(archive) as packed:
        (name,) = (n for n in packed.getnames() if n.count("/") == 1 and n.endswith("/PKG-INFO"))
        found = packed.extractfile(name)
        assert found is not None
        return Metadata.from_email(found.read())


def faults(wheel: Path, source: Path) -> list[str]:
    """What is wrong with a wheel, and with the source distribution beside it."""
    told, same = metadata_in_wheel(wheel), metadata_in_source(source)
    with zipfile.ZipFile(wheel) as archive:
        own = {name for name in archive.namelist() if ".dist-info/" not in name}
    packages = PACKAGES[told.name]
    wrong = [f"not of the package: {n}" for n in sorted(own) if n.split("/")[0] not in packages]
    files = [path for name in packages for path in (SOURCES[told.name] / name).rglob("*")]
    kept = {p for p in files if p.suffix == ".py" or p.name == "py.typed"}
    names = {p.relative_to(SOURCES[told.name]).as_posix() for p in kept}
    wrong += [f"missing: {name}" for name in sorted(names - own)]
    if told.name == "pairfold" and "pairfold/py.typed" not in own:
        wrong.append("py.typed is missing")
    if not wheel.name.endswith("-py3-none-any.whl"):
        wrong.append(f"made for one platform: {wheel.name}")
    needed = {r.name for r in told.requires_dist or [] if "extra" not in str(r.marker)}
    if needed != NEEDED[told.name]:
        wrong.append(f"{told.name} needs {', '.join(sorted(needed))}")
    if (told.version, told.name) != (same.version, same.name):
        wrong.append(f"{source.name} says {same.name} {same.version}")
    told_of = (told.summary, told.description, told.project_urls, told.license_expression)
    if not all(told_of) or (told.name == "pairfold" and not (told.classifiers and told.keywords)):
        wrong.append(f"{told.name} says too little of itself")
    return wrong


def used(wheels: list[Path], folder: Path) -> None:
    """Install wheels into an environment of their own, and use them."""
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *map(str, wheels)], check=True)
    version = str(metadata_in_wheel(wheels[0]).version)
    subprocess.run([str(python), "-c", PROGRAM, version], check=True, cwd=folder)
    doctor = [str(python), "-m", "pairfold", "doctor"]
    subprocess.run(doctor, check=True, cwd=folder, stdout=subprocess.DEVNULL)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = copied(tracked(), folder)
        packages = [built(copy, folder / "own"), built(copy / "dropin", folder / "dropin")]
        check = [sys.executable, "-m", "twine", "check", "--strict"]
        subprocess.run([*check, *(str(path) for pair in packages for path in pair)], check=True)
        wrong = [fault for wheel, source in packages for fault in faults(wheel, source)]
        print("\n".join([path.name for pair in packages for path in pair] + wrong))
        used([wheel for wheel, _ in packages], folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
