"""A module imports only what stands above it in ORDER; folders count as one place."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "semedit"
ORDER = (
    "version",
    "errors",
    "options",
    "cameras",
    "runtime",
    "media",
    "weights",
    "metrics",
    "faces",
    "generators",
    "checkpoints",
    "latents",
    "losses",
    "inverters",
    "directions",
    "editors",
    "renders",
    "detail",
    "heads",
    "datasets",
    "trainers",
    "batch",
    "tasks",
    "evaluations",
    "web",
    "notebook",
    "cli",
    "__init__",
)
HEAVY = {"torch", "torchvision", "numba", "skimage", "scipy", "cv2", "facexlib", "face_alignment"}


def place(module: str) -> str:
    """The entry of ORDER that a module belongs to: semedit.faces.align -> faces."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, tree: ast.AST):
    """Absolute names of the semedit modules that a file imports."""
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files():
    return sorted(p for p in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_imports_point_upwards(path):
    here = place(name_of(path))
    assert here in ORDER, f"{here} has no place in the order of layers"
    for module in imported(path, ast.parse(path.read_text("utf-8"))):
        if not module.startswith("semedit.") or place(module) not in ORDER:
            continue  # names of the package itself, like semedit.__version__
        there = place(module)
        assert ORDER.index(there) <= ORDER.index(here), f"{here} imports {module}"


def test_no_two_modules_import_each_other():
    """No circle, however long, among the modules; a package counts as its __init__."""
    own = {name_of(path): path for path in files()}
    graph: dict[str, set[str]] = {}
    for name, path in own.items():
        found = imported(path, ast.parse(path.read_text("utf-8")))
        graph[name] = {m if m in own else m.rpartition(".")[0] for m in found} & own.keys() - {name}
    while graph:  # take away what imports nothing that is left
        free = {name for name, below in graph.items() if not below & graph.keys()}
        assert free, f"a circle among {sorted(graph)}"
        graph = {name: below for name, below in graph.items() if name not in free}


@pytest.mark.parametrize(
    "path", [p for p in files() if place(name_of(p)) in ("__init__", "cli", "options")], ids=name_of
)
def test_the_command_line_loads_nothing_heavy_up_front(path):
    for node in ast.parse(path.read_text("utf-8")).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not HEAVY & {name.split(".")[0] for name in names}


def test_tests_import_no_other_test() -> None:
    """What tests share stands in modules of its own, which hold no tests."""
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        for name in imported_modules(path):
            assert not name.rpartition(".")[2].startswith("test_"), f"{path.name} imports {name}"


def imported_modules(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module or "", *(alias.name for alias in node.names)]
    return found
