"""The house: what each room may import, read from the files; no circle of files; nothing that runs upward."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ("__init__.py", "__init__.pyi", "__main__.py", "api.py", "py.typed")
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_ENTRIES = 250, 60, 13

# Room: what of ours it may import beside itself. A room stands above all that it may import.
BELOW = {
    "machine": (),
    "schedules": ("machine",),
    "data": ("machine",),
    "track": ("machine",),
    "views": ("schedules", "machine"),
    "preprocess": ("data", "machine"),
    "model": ("views", "schedules", "machine"),
    "stage": ("model", "views", "schedules", "data", "track", "machine"),
    "evaluate": ("model", "views", "schedules", "data", "track", "machine"),
    "train": ("stage", "evaluate", "model", "views", "schedules", "data", "track", "machine"),
    "predict": ("evaluate", "model", "views", "schedules", "data", "track", "machine"),
    "bench": ("stage", "model", "views", "schedules", "data", "track", "machine"),
    "study": ("train", "stage", "evaluate", "model", "views", "schedules", "data", "track", "machine"),
    "api": ("train", "predict", "evaluate", "model", "data", "track", "machine"),  # names the packer as text
    "__main__": ("machine",),  # names all others as text
}


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


FILES = {module_of(path): path for room in ("fastres", "preprocess") for path in (ROOT / room).rglob("*.py")}


def room_of(module: str) -> str:
    """`preprocess`, or the name below fastres; a bare `fastres` is its version alone."""
    top, _, rest = module.partition(".")
    return top if top == "preprocess" or not rest else rest.partition(".")[0]


def imports(source: str) -> set[str]:
    """Our modules that a file imports anywhere in it: at its top, in functions, for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not for this house"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in FILES:
                name = name.rpartition(".")[0]
            found |= {name} if name else set()
    return found


def faults(module: str, source: str) -> list[str]:
    """Imports of one file that its room may not have."""
    allowed = {room_of(module), *BELOW[room_of(module)], "fastres"}
    return [f"{module} imports {name}" for name in sorted(imports(source)) if room_of(name) not in allowed]


def test_rooms_import_downward_only():
    found = [
        fault for module, path in FILES.items() if module != "fastres" for fault in faults(module, path.read_text())
    ]
    assert not found, "\n".join(found)
    above = {room: set(below) for room, below in BELOW.items()}
    TopologicalSorter(above).prepare()  # the table itself has no circle


def test_no_circle_of_files():
    graph = {module: imports(path.read_text()) - {module} for module, path in FILES.items()}
    # `from package import module` names the package too, whose __init__ then imports nothing of the caller
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("fastres.data.resident", "from fastres.stage.step import EagerStep"),
        ("fastres.machine.files", "import fastres.track.log"),
        ("fastres.predict", "def late():\n    from preprocess.pack import main"),
        ("fastres.study.jobs", "from fastres.bench import output"),
    ],
)
def test_an_import_that_runs_upward_is_found(module, line):
    assert faults(module, f"{FILES[module].read_text()}\n{line}\n")


def test_the_top_level_is_the_pipeline():
    entries = {p.name for p in (ROOT / "fastres").iterdir()} - {*PACKAGE, "__pycache__"}
    assert len(entries) <= MOST_ENTRIES, sorted(entries)
    rooms = {name.removesuffix(".py") for name in entries} - {"docs"}
    assert rooms == set(BELOW) - {"preprocess", "__main__", "api"}


def test_files_are_rooms_and_functions_fit_a_screen():
    long = []
    for path in (*FILES.values(), *(ROOT / "tests").rglob("*.py")):
        source = path.read_text()
        if source.count("\n") > MOST_LINES:
            long.append(f"{path.relative_to(ROOT)}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_LINES_OF_A_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert not long, "\n".join(long)
