"""Build both distributions, install their wheels alone, and use them: `make wheel`.

Needs the packages `build` and `twine`, and an index of packages, for numpy and llvmlite.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from source_distribution import ROOT, copied, tracked

PROGRAM = """
import sys
import numpy as np
import pairfold
from pykeops.numpy import Genred

x, y, b = np.random.rand(17, 3), np.random.rand(23, 3), np.random.rand(23, 1)
found = Genred("Exp(-SqDist(x,y))*b", ["x = Vi(3)", "y = Vj(3)", "b = Vj(1)"], axis=1)(x, y, b)
dense = np.exp(-((x[:, None] - y) ** 2).sum(-1)) @ b
np.testing.assert_allclose(found, dense, rtol=1e-12)
assert "torch" not in sys.modules and sys.prefix in pairfold.__file__
print("pairfold", pairfold.__version__)
"""


def built(source: Path, folder: Path) -> list[Path]:
    """The wheel and the source distribution of a project."""
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("*"))


def faults(wheel: Path) -> list[str]:
    """What is wrong with what a wheel holds."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    own = {name for name in names if ".dist-info/" not in name}
    wrong = [f"not of the package: {name}" for name in own if not name.startswith("pairfold/")]
    if "pairfold/py.typed" not in own:
        wrong.append("py.typed is missing")
    sources = {str(p.relative_to(ROOT / "src")) for p in (ROOT / "src/pairfold").rglob("*.py")}
    wrong += [f"missing: {name}" for name in sorted(sources - own)]
    if not wheel.name.endswith("-py3-none-any.whl"):
        wrong.append(f"made for one platform: {wheel.name}")
    return wrong


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = copied(tracked(), folder)
        packages = [*built(copy, folder / "own"), *built(copy / "dropin", folder / "dropin")]
        check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, packages)]
        subprocess.run(check, check=True)
        wheels = [path for path in packages if path.suffix == ".whl"]
        wrong = faults(wheels[0])
        print("\n".join([path.name for path in packages] + wrong))
        python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        install = [str(python), "-m", "pip", "install", "-q", *map(str, wheels)]
        subprocess.run(install, check=True)
        subprocess.run([str(python), "-c", PROGRAM], check=True, cwd=folder)
        doctor = [str(python), "-m", "pairfold", "doctor"]
        subprocess.run(doctor, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
