"""The package `pykeops` as pairfold provides it: for one process, and as a distribution."""

from __future__ import annotations

from pathlib import Path

import pytest
from elsewhere import SOURCES, python

from pairfold import dropin


def said_alone(code: str, path: list[Path] | None = None) -> str:
    """What a program prints after `pairfold.dropin.install()`, in a process of its own."""
    done = python("-c", f"import pairfold.dropin\npairfold.dropin.install()\n{code}", path=path)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fake_pykeops(folder: Path) -> Path:
    """A folder with another package called pykeops, with a submodule that ours lacks."""
    package = folder / "elsewhere" / "pykeops"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = 'not ours'\n")
    (package / "extra.py").write_text("")
    return package.parent


SUM = (
    "import numpy as np\n"
    "print(Genred('x*y', ['x = Vi(1)', 'y = Vj(1)'], axis=1)(np.ones((2, 1)), np.ones((3, 1))))\n"
)


@pytest.mark.parametrize("place", ["pykeops.numpy", "pykeops.numpy.generic.generic_red"])
def test_genred_works_under_every_numpy_name(installed, place):
    assert installed(f"from {place} import Genred\n{SUM}") == "[[3.]\n [3.]]"


def test_genred_is_the_same_class_under_every_torch_name(installed):
    pytest.importorskip("torch")
    code = "import pairfold.dropin.torch, pairfold.torch\n"
    for place in ("pykeops.torch", "pykeops.torch.generic.generic_red"):
        code += f"from {place} import Genred\nprint(Genred is pairfold.dropin.torch.Genred)\n"
    code += "print(issubclass(Genred, pairfold.torch.Genred))"
    assert installed(code) == "True\nTrue\nTrue"


def test_the_solvers_have_their_names(installed):
    code = "from pykeops.numpy.operations import KernelSolve as one\n"
    code += "from pykeops.numpy import KernelSolve as two\n"
    code += "from pykeops.common.operations import ConjugateGradientSolver as solve\n"
    code += "import numpy as np\nprint(one is two, solve('numpy', lambda a: 2 * a, np.ones(2)))"
    assert installed(code) == "True [0.5 0.5]"


def test_submodules_are_attributes_and_come_when_asked_for(installed):
    code = (
        "import sys, pykeops\n"
        "print('pykeops.numpy' in sys.modules, pykeops.numpy.generic.generic_red.Genred.__name__)"
    )
    assert installed(code) == "False Genred"


def test_importing_pykeops_does_not_import_torch():
    assert said_alone("import sys, pykeops.numpy\nprint('torch' in sys.modules)") == "False"


def test_the_version_is_the_one_that_programs_check_for(installed):
    assert installed("import pykeops\nprint(pykeops.__version__)") == "2.3"


def test_set_verbose_changes_the_flag(installed):
    code = "import pykeops\nprint(pykeops.verbose)\npykeops.set_verbose(False)\n"
    assert installed(code + "print(pykeops.verbose)") == "True\nFalse"


def test_import_star_gives_the_names_that_exist(installed):
    assert installed("from pykeops.numpy import *\nprint(Genred.__name__)") == "Genred"


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_binding_test_gives_its_verdict(installed, library):
    pytest.importorskip(library)
    said = installed(f"import pykeops\npykeops.test_{library}_bindings()")
    assert said == f"pairfold computes the right numbers with {library}."


def test_a_wrong_binding_is_called_wrong(monkeypatch, capsys):
    from pairfold.numpy import Genred

    monkeypatch.setattr(Genred, "__call__", lambda self, x, y: x[:2, :1])
    dropin.test_numpy_bindings()
    assert "WRONG" in capsys.readouterr().out


def test_a_module_that_pykeops_does_not_have_says_so(installed):
    code = "try:\n    import pykeops.torch.kernel_product\n"
    said = installed(code + "except ImportError as error:\n    print(error)")
    assert "does not have pykeops.torch.kernel_product" in said
    assert "pykeops.torch.Genred" in said


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_function_and_a_module_may_share_a_name(installed, library):
    pytest.importorskip(library)
    code = (
        f"import pykeops.{library}.cluster.grid_cluster as module\n"
        f"from pykeops.{library} import cluster\n"
        f"from pykeops.{library}.cluster.matrix import from_matrix\n"
        "from pairfold import cluster as ours\n"
        "print(cluster.grid_cluster is ours.grid_cluster, from_matrix is ours.from_matrix)"
    )
    assert installed(code) == "True True"


def test_a_name_that_never_existed_is_an_attribute_error(installed):
    code = "import pykeops.numpy\nprint(hasattr(pykeops.numpy, 'Genrad'))"
    assert installed(code) == "False"


def test_install_may_be_called_twice(installed):
    code = "print(pairfold.dropin.install() is pairfold.dropin.install())\n"
    code += "import sys\nprint(sum(type(f).__module__ == 'pairfold.dropin' for f in sys.meta_path))"
    assert installed(code) == "True\n1"


def test_install_takes_precedence_over_another_pykeops(tmp_path):
    path = [fake_pykeops(tmp_path), *SOURCES[:1]]
    assert said_alone("import pykeops\nprint(pykeops.__version__)", path=path) == "2.3"


def test_submodules_of_another_pykeops_do_not_shine_through(tmp_path):
    path = [fake_pykeops(tmp_path), *SOURCES[:1]]
    code = "try:\n    import pykeops.extra\nexcept ImportError as error:\n    print(error)"
    assert "does not have pykeops.extra" in said_alone(code, path=path)


def test_install_refuses_when_another_pykeops_is_imported_already(tmp_path):
    path = [fake_pykeops(tmp_path), *SOURCES[:1]]
    done = python("-c", "import pykeops, pairfold.dropin as d; d.install()", path=path)
    assert done.returncode == 1
    assert "another package of that name is already imported" in done.stderr
    assert str(path[0]) in done.stderr


def test_the_distribution_provides_the_same_modules():
    names = ", ".join(name for name in dropin.MODULES if "torch" not in name)
    code = f"import {names}\nfrom pykeops.numpy import Genred\n{SUM}print(pykeops.__version__)"
    done = python("-c", code, path=SOURCES)
    assert done.stdout == "[[3.]\n [3.]]\n2.3\n", done.stderr


def test_the_distribution_and_install_agree():
    code = "import pykeops, pairfold.dropin as d\nprint(d.install() is pykeops)"
    assert python("-c", code, path=SOURCES).stdout.strip() == "True"


SCRIPT = """\
import sys
from neighbour import word
from pykeops.numpy import Genred
print(__name__, word, sys.argv[1:], Genred.__module__)
if "fail" in sys.argv:
    raise LookupError("on purpose")
sys.exit(7)
"""


@pytest.fixture
def script(tmp_path):
    """A program that imports a module lying next to it, and pykeops."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "neighbour.py").write_text("word = 'found'\n")
    (folder / "program.py").write_text(SCRIPT)
    return folder / "program.py"


def test_a_script_runs_as_main_with_its_arguments_and_its_exit_status(script):
    done = python("-m", "pairfold.dropin", str(script), "-x", "1")
    assert done.returncode == 7, done.stderr
    assert done.stdout == "__main__ found ['-x', '1'] pairfold.dropin.numpy\n"


def test_a_script_wins_over_another_pykeops(script, tmp_path):
    path = [fake_pykeops(tmp_path), *SOURCES[:1]]
    assert python("-m", "pairfold.dropin", str(script), path=path).returncode == 7


def test_an_error_in_a_script_shows_its_own_line(script):
    done = python("-m", "pairfold.dropin", str(script), "fail")
    assert done.returncode == 1
    assert f'File "{script}", line 6, in <module>' in done.stderr
    assert done.stderr.rstrip().endswith("LookupError: on purpose")


def test_a_module_runs_as_main(script):
    done = python("-m", "pairfold.dropin", "-m", "program", "a", cwd=script.parent)
    assert done.returncode == 7, done.stderr
    assert done.stdout == "__main__ found ['a'] pairfold.dropin.numpy\n"


@pytest.mark.parametrize("arguments", [[], ["-m"], ["no_such_file.py"]])
def test_a_wrong_command_line_is_refused(arguments):
    done = python("-m", "pairfold.dropin", *arguments)
    assert done.returncode == 2
    assert "pairfold.dropin" in done.stderr
    assert "Traceback" not in done.stderr


# -- the modules beside the reductions -------------------------------------------------------------


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_every_name_of_every_module_is_there(installed, library):
    pytest.importorskip(library)
    names = [name for name in sorted(dropin.MODULES) if ("torch" in name) == (library == "torch")]
    assert len(names) > 10
    # grid_cluster is a module and a function there, and `import ... as` would find the function.
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    for other in list(sys.modules):\n"
        "        if other.split('.')[0] in ('pykeops', 'keopscore'):\n"
        "            del sys.modules[other]\n"
        "    module = importlib.import_module(name)\n"
        "    missing = [n for n in module.__all__ if not hasattr(module, n)]\n"
        "    print(name, *missing)"
    )
    assert installed(code).splitlines() == names


def test_programs_may_set_flags_of_keopscore(installed):
    code = "import keopscore\nkeopscore.auto_factorize = True\nprint(keopscore.__name__)"
    assert installed(code) == "keopscore"


def test_build_folders_are_names_alone(tmp_path):
    from pairfold.dropin import config

    before = config.get_build_folder()
    config.set_build_folder(str(tmp_path / "there"))
    assert config.get_build_folder() == str(tmp_path / "there")
    assert not (tmp_path / "there").exists()
    config.clean_pykeops()
    config.set_build_folder()
    assert config.get_build_folder() == before


def test_both_kinds_of_lazy_tensors_are_generic_ones(installed):
    code = (
        "import numpy as np\n"
        "from pykeops.numpy import LazyTensor\n"
        "from pykeops.common.lazy_tensor import GenericLazyTensor as G\n"
        "from pykeops.common.lazy_tensor import is_complex_lazytensor as c\n"
        "x = LazyTensor(np.ones((2, 1, 3)))\n"
        "z = LazyTensor(1j * np.ones((2, 1, 3)))\n"
        "print(isinstance(x, G), isinstance(z, G), c(x), c(z))"
    )
    assert installed(code) == "True True False True"


@pytest.mark.parametrize("kernel", ["gaussian", "laplacian", "cauchy", "inverse_multiquadric"])
def test_kernels_their_logarithms_and_slopes_agree(kernel):
    import numpy as np

    from pairfold.dropin import kernels

    x, y = np.zeros((1, 1)), np.linspace(1, 2, 5)[:, None]
    value = kernels.np_kernel(x, y, 0.7, kernel)
    np.testing.assert_allclose(np.exp(kernels.log_np_kernel(x, y, 0.7, kernel)), value)
    step = 1e-6
    ahead, behind = (kernels.np_kernel(x, np.sqrt(y**2 + h), 0.7, kernel) for h in (step, -step))
    slope = kernels.grad_np_kernel(x, y, 0.7, kernel)
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-6)


def test_the_chain_rule_is_the_gradient_of_the_sum():
    import numpy as np

    from pairfold.dropin import kernels

    rng = np.random.default_rng(0)
    x, y, q, p = (rng.normal(size=shape) for shape in ((3, 2), (4, 2), (3, 2), (4, 2)))

    def total(points):
        return float((kernels.np_kernel(points, y, 1.0, "gaussian") * (q @ p.T)).sum())

    slope = kernels.grad_np_kernel(x, y, 1.0, "gaussian")
    step = np.zeros_like(x)
    step[1, 0] = 1e-6
    wanted = (total(x + step) - total(x - step)) / 2e-6
    assert abs(kernels.chain_rules(q, x, y, slope, p)[1, 0] - wanted) < 1e-7
