"""The house keeps its shape: imports point down, go round in no circle, and cost little."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1] / "solvers"

# A module may import its own package and the floors below it; packages of one floor do not know each other.
FLOORS = {
    **{"core": 0, "pde": 1, "fixed_points": 1, "sampling": 1, "inverse": 2, "plot": 3},
    **{"tables": 3, "evidence": 4, "demo": 5, "cli": 6},
}

# Imported inside the functions that use them: together they cost seconds.
HEAVY = {
    *("arviz", "diffrax", "lineax", "matplotlib", "optax", "optimistix", "orbax"),
    *("scipy", "sklearn", "tqdm", "xarray", "zarr"),
}


def modules(root):
    """Every module of the package by its dotted name, `solvers` being the door itself."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(module, path, known, nodes=None):
    """Dotted names that `module` imports, anywhere in it unless `nodes` are given."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            # `from solvers.core import grid` and `from solvers.core.grid import Grid` both read the module grid.
            names.update(f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names)
    return names


def upward_arrows(root):
    """Sentences about imports that point up, sideways, or at the door."""
    known, wrong = modules(root), []
    for module, path in known.items():
        if module == root.name or module == f"{root.name}.__main__":
            continue
        mine = module.split(".")[1]
        if mine not in FLOORS:
            wrong.append(f"{module} stands on no floor: give {mine} its place in FLOORS of {__name__}")
            continue
        for name in sorted(imported(module, path, known)):
            parts = name.split(".")
            if parts[0] != root.name or (len(parts) > 1 and parts[1] == mine):
                continue
            if len(parts) == 1:
                if mine != "cli":
                    wrong.append(f"{module} imports the door; import the module that holds the name")
            elif FLOORS.get(parts[1], 0) >= FLOORS[mine]:
                wrong.append(f"{module} imports {name}, which does not stand below it")
    return wrong


def circle(root):
    """The modules of one circle of imports, or an empty list."""
    known = modules(root)
    arrows = {module: imported(module, path, known) & known.keys() - {root.name} for module, path in known.items()}
    trail, done = [], set()

    def visit(module):
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        trail.append(module)
        found = next(filter(None, map(visit, sorted(arrows[module] - {module}))), [])
        trail.pop()
        done.add(module)
        return found

    return next(filter(None, map(visit, arrows)), [])


def read_at_import(body):
    """The import statements that run when the module is imported: not those in functions or for type checkers."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from read_at_import(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from read_at_import(ast.iter_child_nodes(node))


def heavy_imports(root):
    """Sentences about heavy packages that are imported with the library."""
    known, wrong = modules(root), []
    for module, path in known.items():
        nodes = list(read_at_import(ast.parse(path.read_text(encoding="utf-8")).body))
        for name in sorted(imported(module, path, known, nodes)):
            if name.split(".")[0] in HEAVY:
                wrong.append(f"{module} imports {name} at its top; import it in the function that uses it")
    return wrong


def test_arrows_point_down():
    assert not (wrong := upward_arrows(ROOT)), "\n".join(wrong)


def test_imports_go_round_in_no_circle():
    assert not (found := circle(ROOT)), " -> ".join(found)


def test_heavy_packages_are_imported_where_they_are_used():
    assert not (wrong := heavy_imports(ROOT)), "\n".join(wrong)


@pytest.fixture
def house(tmp_path):
    """A function that builds a package called `solvers` from {path: text}."""

    def build(**files):
        for name, text in files.items():
            path = tmp_path / "solvers" / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "solvers"

    return build


@pytest.mark.parametrize(
    "files",
    [
        {"core__loop": "from solvers.pde.wave import Wave"},
        {"core__loop": "from ..pde import wave", "pde__wave": ""},
        {"core__loop": "def run():\n    import solvers.cli"},
        {"pde__wave": "from solvers.sampling import kernels"},
        {"pde__wave": "from ..plot import snapshot"},
        {"inverse__minimize": "import solvers"},
        {"attic__old": ""},
    ],
)
def test_a_wrong_arrow_is_seen(house, files):
    assert len(upward_arrows(house(**files))) == 1


def test_right_arrows_are_left_alone(house):
    files = {"pde__wave": "from ..core.loop import simulate\nfrom .points import spread", "cli": "import solvers as sv"}
    assert upward_arrows(house(**files)) == []


def test_a_circle_is_seen(house):
    root = house(core__a="from .b import x", core__b="def f():\n    from . import c", core__c="import solvers.core.a")
    assert circle(root) == ["solvers.core.a", "solvers.core.b", "solvers.core.c", "solvers.core.a"]


@pytest.mark.parametrize(
    "text",
    [
        "import scipy.optimize",
        "from matplotlib import pyplot",
        "class A:\n  try:\n    import tqdm\n  finally: 0",
    ],
)
def test_a_heavy_import_is_seen(house, text):
    assert len(heavy_imports(house(plot=text))) == 1


@pytest.mark.parametrize("line", ["def f():\n    import scipy", "if TYPE_CHECKING:\n    import scipy", "import scipyx"])
def test_a_late_import_is_left_alone(house, line):
    assert heavy_imports(house(plot=line)) == []


def test_the_door_opens_fast_and_reads_nothing_heavy():
    program = (
        "import sys, time, jax; before = set(sys.modules); start = time.perf_counter(); import solvers;"
        "[getattr(solvers, name) for name in solvers.__all__]; print(time.perf_counter() - start);"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )

    def attempt():
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        assert told.returncode == 0, told.stderr
        seconds, packages = told.stdout.splitlines()
        return float(seconds), set(packages.split())

    # The best of three: the first may compile bytecode, and other work may share the cores.
    attempts = [attempt() for _ in range(3)]
    assert min(seconds for seconds, _ in attempts) < 1.5
    assert not attempts[0][1] & HEAVY
