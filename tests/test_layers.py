"""The architecture's import rules, checked on the code: one ordered list of rooms, and two flags."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "serf_haproxy"
PACKAGE_DIR = ROOT / "agent" / PACKAGE
HANDLERS = tuple(ROOT / "handlers" / f"{name}.py" for name in ("member_event", "order_event", "ready_for_traffic"))

# A module imports from rooms further left and from its own room. The package itself and __main__ stand at the ends.
ORDER = (
    *"__init__ errors system settings services serf policy config haproxy".split(),  # noqa: SIM905
    *"control balance autoscale companion show web daemon lab cli __main__".split(),  # noqa: SIM905
)

# Cheap: what each event loads, while Serf waits. Pure: no file, clock, process or network.
CHEAP = ("errors", "serf/__init__", "serf/answers", "serf/events", "serf/inbox", "serf/nodes", "serf/printing")
CHEAP += ("serf/handling", "serf/wake", "haproxy/__init__", "haproxy/readiness")
CHEAP_OUTSIDE = {"_socket", "errno", "os", "stat", "sys", "time"}
PURE = ("policy/*", "config/*", "*/law", "*/schedule", "balance/evidence")
PURE += tuple(f"autoscale/{name}" for name in "amount course reading rules scaling slots starts survey wire".split())  # noqa: SIM905
PURE_OUTSIDE = {"base64", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "hmac", "ipaddress"}
PURE_OUTSIDE |= {"binascii", "calendar", "heapq", "json"}
PURE_OUTSIDE |= {"collections.abc", "contextlib", "math", "re", "string", "struct", "traceback", "typing"}
PURE_OUTSIDE |= {"itertools", "jinja2", "jinja2.debug"}

# The modules that may import each third-party package, or the module that starts processes.
HOMES = {
    "jinja2": {"config/render"},
    "prometheus_client": {"web/metrics", "web/scale_metrics"},
    "msgpack": {"serf/rpc", "serf/wire"},
    "psutil": {"lab", "haproxy/workers", "system/interfaces"},
    "requests": {"lab"},
    "rich": {"show/live"},
    "starlette": {"lab"},
    "uvicorn": {"lab"},
    "subprocess": {"system/processes", "lab"},
}

PATHS = sorted(PACKAGE_DIR.rglob("*.py"))


def name_module(path: Path) -> str:
    """Return the name of a module of the package, such as `serf/events`."""
    return path.stem if path in HANDLERS else str(path.relative_to(PACKAGE_DIR).with_suffix(""))


def name_room(module: str) -> str:
    """Return the room of a module: its folder, or the module itself at the top."""
    return module.split("/", maxsplit=1)[0]


MODULES = {name_module(path): path for path in PATHS}


def list_imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports anywhere, by its whole name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its room"
            assert node.module
            if node.module.split(".")[0] == PACKAGE:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def list_ours(path: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    ours = set()
    for name in list_imports(path):
        words = name.split(".")
        if words[0] != PACKAGE:
            continue
        candidates = ["/".join(words[1:end]) for end in range(len(words), 0, -1)]
        choices = (choice for one in candidates for choice in (one, f"{one}/__init__".removeprefix("/")))
        ours.add(next(choice for choice in choices if choice in MODULES))
    return ours


def list_outside(path: Path) -> set[str]:
    """Return the imported modules of a file that are not in the package."""
    return {name for name in list_imports(path) if name.split(".")[0] != PACKAGE}


def test_every_room_is_in_the_list() -> None:
    """The list contains exactly the files and folders of the package."""
    assert {name_room(module) for module in MODULES} == set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_the_left(module: str) -> None:
    """A module imports only from rooms further left in the list, or from its own."""
    depth = ORDER.index(name_room(module))
    wrong = {other for other in list_ours(MODULES[module]) if ORDER.index(name_room(other)) > depth}
    assert not wrong


def test_there_is_no_circle() -> None:
    """No imports form a circle."""
    graph = {module: list_ours(path) - {module} for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", [*PATHS, *HANDLERS], ids=name_module)
def test_packages_are_imported_only_in_their_homes(path: Path) -> None:
    """A third-party package, or `subprocess`, is imported only by the modules of its home."""
    module = name_module(path)
    for name in list_outside(path):
        top = name.split(".")[0]
        assert top in HOMES or top in sys.stdlib_module_names, f"{top} has no home"
        assert {module, name_room(module)} & HOMES.get(top, {module}), f"{top} is not at home here"


@pytest.mark.parametrize("path", [*(MODULES[name] for name in CHEAP), *HANDLERS], ids=name_module)
def test_cheap_modules_import_the_cheap_set(path: Path) -> None:
    """The modules that a handler loads import only each other and the cheapest standard modules."""
    assert list_outside(path) <= CHEAP_OUTSIDE
    assert list_ours(path) <= {*CHEAP, "__init__"}


@pytest.mark.parametrize("path", [path for path in PATHS if any(Path(name_module(path)).match(flag) for flag in PURE)])
def test_pure_modules_cannot_touch_the_world(path: Path) -> None:
    """A pure module imports no module that can reach a file, a clock, a process or the network."""
    assert list_outside(path) <= PURE_OUTSIDE


@pytest.mark.parametrize("path", [path for path in PATHS if any(Path(name_module(path)).match(flag) for flag in PURE)])
def test_pure_modules_remember_nothing_by_themselves(path: Path) -> None:
    """A pure module has no cache of its own: what it remembers belongs to an object of its caller."""
    for node in ast.parse(path.read_text()).body:
        decorators = getattr(node, "decorator_list", [])
        assert not [one for one in decorators if "cache" in ast.unparse(one)], f"{path}:{node.lineno}"
        if isinstance(node, ast.Assign | ast.AnnAssign):
            value = node.value
            assert not isinstance(value, ast.Dict | ast.List | ast.Set), f"{path}:{node.lineno}: it can be changed"


@pytest.mark.parametrize("path", [*PATHS, *HANDLERS], ids=name_module)
def test_rooms_are_small(path: Path) -> None:
    """No module has more than 250 lines, and no function more than 50."""
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{path}:{node.lineno}: {node.name}"


def test_all_exceptions_are_caught_in_one_place() -> None:
    """`except Exception` occurs once, in the daemon's loop."""
    caught = [
        name_module(path)
        for path in [*PATHS, *HANDLERS]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) == "Exception")
    ]
    assert caught == ["daemon/loop"]
