"""A module imports only what stands above it in ORDER; folders count as one place."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "semedit"
ORDER = (
    "__init__",
    "errors",
    "allocator",
    "torchvision_ops",
    "compiled",
    "methods",
    "provenance",
    "images",
    "decoding",
    "weights",
    "cameras",
    "faces",
    "generators",
    "checkpoints",
    "latents",
    "losses",
    "inverters",
    "editors",
    "renders",
    "meshes",
    "heads",
    "metrics",
    "trainers",
    "evaluation",
    "comparison",
    "styles",
    "fid",
    "ablation",
    "transfers",
    "consistency",
    "ide3d",
    "workspace",
    "batch",
    "tasks",
    "web",
    "demo",
    "cli",
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
    if here == "__init__":
        return  # its public names load lazily from everywhere
    for module in imported(path, ast.parse(path.read_text("utf-8"))):
        if not module.startswith("semedit.") or place(module) not in ORDER:
            continue  # names of the package itself, like semedit.__version__
        there = place(module)
        assert ORDER.index(there) <= ORDER.index(here), f"{here} imports {module}"


@pytest.mark.parametrize(
    "path", [p for p in files() if place(name_of(p)) in ("__init__", "cli", "methods")], ids=name_of
)
def test_the_command_line_loads_nothing_heavy_up_front(path):
    for node in ast.parse(path.read_text("utf-8")).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not HEAVY & {name.split(".")[0] for name in names}
