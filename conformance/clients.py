"""Run released clients of PyKeOps, unmodified, on pairfold: geomloss, gpytorch, TorchDR.

    python conformance/clients.py --write conformance/clients.md

Makes a temporary environment, installs pairfold and its package `pykeops` from a copy of this tree,
and the clients by their names with pip; then runs `client_geomloss.py` and the others in it, which
compare every client with its own dense computations, and writes the results as a table.
`--python` takes an interpreter that has the clients and pairfold instead, `--tree` puts this tree's
sources before what is installed there. The exit status is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
SCRIPTS = {name: f"client_{name}.py" for name in ("geomloss", "gpytorch", "torchdr")}
INSTALLED = ("pairfold", "pairfold-pykeops", "torch", "numpy", "llvmlite")
LIMIT = 3600
WHERE = """
import importlib.metadata as m, json, pykeops, pairfold, sys
found = {name: m.version(name) for name in sys.argv[1:] if name in {
    d.metadata["Name"] for d in m.distributions()}}
assert pykeops.__pairfold__ == pairfold.__version__
print(json.dumps([found, pairfold.__file__]))
"""


@dataclass
class Result:
    """What a script of checks said."""

    client: str
    versions: dict[str, str] = field(default_factory=dict[str, str])
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    error: str | None = None

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Checks and what failed in them."""
        lines = [(row["check"], line) for row in self.rows for line in row["failed"]]
        return [*lines, *([("the program", self.error)] if self.error else [])]


def environment(folder: Path, wanted: Sequence[str]) -> str:
    """A new environment with pairfold of this tree and clients; its interpreter."""
    venv.create(folder / "env", with_pip=True)
    places = (folder / "env" / part for part in ("bin/python", "Scripts/python.exe"))
    python = str(next(place for place in places if place.exists()))
    tree = folder / "tree"
    tree.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in listed:
        needed = name.startswith(("src/", "dropin/")) or "/" not in name
        if name and needed and (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    command = [python, "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt"]
    command += ["./[torch]", "./dropin", *wanted]
    subprocess.run(command, cwd=tree, check=True, stdout=sys.stderr)
    return python


def variables(tree: bool) -> dict[str, str]:
    """The environment variables of a run: no path of ours, unless sources are to be first."""
    found = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    found["CUDA_VISIBLE_DEVICES"] = ""
    found.setdefault("OMP_NUM_THREADS", "1")  # arrays are small, and two programs run
    if tree:
        found["PYTHONPATH"] = os.pathsep.join(str(ROOT / p) for p in ("src", "dropin/src"))
    return found


def versions_of(python: str, env: Mapping[str, str]) -> dict[str, str]:
    """The versions of what is installed; `pykeops` there must be pairfold's."""
    command = [python, "-c", WHERE, *INSTALLED]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    found, place = json.loads(done.stdout)
    sys.stderr.write(f"{found} {place}\n")
    return found


def run(client: str, python: str, env: Mapping[str, str]) -> Result:
    """Run the checks of a client in an environment."""
    found = Result(client)
    with tempfile.TemporaryDirectory() as elsewhere:
        try:
            done = subprocess.run(
                [python, str(HERE / SCRIPTS[client])],
                cwd=elsewhere,
                env=env,
                capture_output=True,
                text=True,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired:
            found.error = f"took more than {LIMIT} seconds"
            return found
    for line in done.stdout.splitlines():
        if line.startswith('{"versions'):
            found.versions = json.loads(line)["versions"]
        elif line.startswith('{"row'):
            found.rows.append(json.loads(line)["row"])
    if done.returncode or not found.rows:
        found.error = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        sys.stderr.write(done.stderr)
    return found


def pair(errors: Mapping[str, Sequence[float]], dtype: str) -> str:
    """Errors of values and gradients as text."""
    found = errors.get(dtype)
    return "" if found is None else f"{found[0]:.0e}, {found[1]:.0e}"


def table(results: Sequence[Result], versions: Mapping[str, str]) -> Iterator[str]:
    """The results as a page."""
    have = {**versions, **{k: v for r in results for k, v in r.versions.items()}}
    rows = [row for result in results for row in result.rows]
    failed = [(r.client, *line) for r in results for line in r.failed]
    cases = sum(row["cases"] for row in rows)
    yield "# Clients of PyKeOps, unmodified, on pairfold\n"
    yield ", ".join(f"{name} {version}" for name, version in have.items()) + ".\n"
    yield f"{cases} cases of {len(rows)} checks, {len(failed)} fail.\n"
    yield (
        "Errors are the worst of values and of gradients, relative to the largest number of each "
        "array, with their limit; truths are always float64. The columns 'dense' say how far the "
        "same dense computation is off in float32, and in float64 how far it moves when the data "
        "are moved by rounding, where that matters: up to 10 times as far is then allowed.\n"
    )
    yield "| client | check | equal to | cases | float64 | dense | float32 | dense | failed |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        shown = [row["client"], row["check"], row["reference"], str(row["cases"])]
        for dtype in ("float64", "float32"):
            limit = row["limits"].get(dtype)
            shown.append(pair(row["errors"], dtype) + (f" ({limit:.0e})" if limit else ""))
            shown.append(pair(row["dense"], dtype))
        yield f"| {' | '.join(shown)} | {len(row['failed'])} |"
    if failed:
        yield "\n| client | check | what failed |\n|---|---|---|"
    for client, check, line in failed:
        escaped = line.replace("|", "\\|")
        yield f"| {client} | {check} | {escaped} |"


def main() -> int:
    """Run the program; the exit status."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--python", help="an interpreter that has the clients and pairfold")
    options.add_argument("--tree", action="store_true", help="use this tree's sources there")
    options.add_argument("--geomloss", default="0.3.1", help="the version to fetch")
    options.add_argument("--gpytorch", default="1.15.2", help="the version to fetch")
    options.add_argument("--linear-operator", default="0.6.1", help="the version to fetch")
    options.add_argument("--torchdr", default="0.5", help="the version to fetch")
    options.add_argument("--only", choices=list(SCRIPTS), help="one client")
    options.add_argument("--write", type=Path, help="a file for the results")
    chosen = options.parse_args()
    clients = [chosen.only] if chosen.only else list(SCRIPTS)
    wanted = [f"geomloss=={chosen.geomloss}", f"gpytorch=={chosen.gpytorch}"]
    wanted += [f"linear_operator=={chosen.linear_operator}", f"torchdr=={chosen.torchdr}"]
    wanted.append("matplotlib")  # TorchDR imports it
    with tempfile.TemporaryDirectory() as temporary:
        python = chosen.python or environment(Path(temporary), wanted)
        env = variables(chosen.tree)
        versions = versions_of(python, env)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda client: run(client, python, env), clients))
    text = "\n".join(table(results, versions)) + "\n"
    sys.stdout.write(text)
    if chosen.write:
        chosen.write.write_text(text)
    return int(any(result.failed for result in results))


if __name__ == "__main__":
    sys.exit(main())
