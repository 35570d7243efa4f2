"""Build the source distribution and work in it: `make sdist`.

What it must hold is what git tracks (without git: what no program has made). All tests are
collected there, and those of `test_genred.py` run, with the library of the distribution alone.
Needs the package `build`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Written by the builder.
BUILT = ("PKG-INFO", "setup.cfg")
# Written by programs, and not tracked.
MADE = (
    "*.pyc",
    "*.png",
    "*.log",
    "*.egg-info/*",
    ".*_cache/*",
    "*/.*_cache/*",
    ".venv/*",
    ".git*/*",
)


def tracked() -> list[str]:
    """The files of the project, new ones that are not ignored included."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        names = {name for name in output.stdout.split("\0") if name}
    else:
        names = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*")}
        names = {name for name in names if not any(fnmatch(name, made) for made in MADE)}
    return sorted(name for name in names if (ROOT / name).is_file())


def copied(files: list[str], folder: Path) -> Path:
    """A folder with these files alone."""
    copy = folder / "copy"
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    return copy


def built(files: list[str], folder: Path) -> Path:
    """The folder of the unpacked distribution, built from a copy of these files alone."""
    copy = copied(files, folder)
    build = [sys.executable, "-m", "build", "--sdist", "--outdir", str(folder / "dist"), str(copy)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    (archive,) = (folder / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


def differences(files: list[str], unpacked: Path) -> list[str]:
    """Lines that say what is missing from the distribution, and what is there but not tracked."""
    found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    found = {name for name in found if name not in BUILT and ".egg-info" not in name}
    missing = [f"missing: {name}" for name in sorted(set(files) - found)]
    return missing + [f"not tracked: {name}" for name in sorted(found - set(files))]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        files = tracked()
        unpacked = built(files, Path(folder))
        wrong = differences(files, unpacked)
        print("\n".join([f"{len(files)} files", *wrong]))
        places = [unpacked / "src", unpacked / "dropin" / "src"]
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
        for arguments in (["--collect-only"], ["tests/test_genred.py"]):
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
            outcome = subprocess.run(
                command, cwd=unpacked, env=surroundings, capture_output=True, text=True
            )
            print(outcome.stdout[-2000:] if outcome.returncode else outcome.stdout.splitlines()[-1])
            wrong += [f"pytest {arguments[0]} failed"] if outcome.returncode else []
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
