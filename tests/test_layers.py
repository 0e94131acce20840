"""The import table of the architecture held against the code: imports point only towards the first layer."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "serf_haproxy"
PACKAGE_DIR = ROOT / "agent" / PACKAGE

# From the words that everybody may use to the command that may use everybody. A module imports from earlier
# layers; from its own only what ALSO says. All of the laboratory is one module here.
LAYERS = {
    "words": ("__init__", "errors"),
    "pure": (
        "admission",
        "events",
        "debounce",
        "flaps",
        "guard",
        "layout",
        "outcome",
        "places",
        "pool",
        "render",
        "rules",
        "server",
    ),
    "tools": ("transport", "files", "log"),
    "door": ("settings",),
    "edges": ("nodes", "roster", "haproxy", "runtime", "state", "workers"),
    "decision": ("goal",),
    "inputs": ("inputs",),
    "pass": ("transition", "salvage", "reconcile"),
    "process": ("link", "watchdog", "daemon", "status", "boot"),
    "lab": ("lab",),
    "command": ("__main__",),
}
ALSO = {
    ("server", "events"),  # a server is made of a member
    ("pool", "events"),  # evidence is about members
    ("pool", "rules"),
    ("rules", "events"),
    ("rules", "server"),
    ("pool", "server"),
    ("rules", "admission"),
    ("rules", "guard"),
    ("pool", "guard"),
    ("rules", "flaps"),
    ("pool", "flaps"),
    ("rules", "places"),
    ("pool", "places"),
    ("render", "layout"),  # its servers are what the runtime socket can change
    ("reconcile", "salvage"),
    ("salvage", "transition"),
    ("render", "server"),  # a configuration is made of servers
    ("haproxy", "runtime"),  # whether a reload was taken is read from HAProxy's sockets
    ("workers", "runtime"),
    ("daemon", "link"),
    ("daemon", "watchdog"),
    ("lab", "lab"),
}

# What runs with every event costs the whole cluster its time; what is pure touches no file, clock, process or network.
CHEAP = {"errors": set(), "events": set(), "nodes": {"errno", "os", "stat", "time"}, "member_event": {"os", "sys"}}
PURE_OUTSIDE = {
    "base64",
    "hmac",
    "struct",
    "collections.abc",
    "contextlib",
    "dataclasses",
    "enum",
    "bisect",
    "functools",
    "hashlib",
    "ipaddress",
    "math",
    "re",
    "string",
}
PURE_OUTSIDE |= {"traceback", "typing"}

# One home for each package that is not ours, and for the module that starts processes.
HOMES = {
    "jinja2": {"render"},
    "msgpack": {"roster"},
    "psutil": {"lab", "workers"},
    "requests": {"lab"},
    "starlette": {"lab"},
    "uvicorn": {"lab"},
    "subprocess": {"transport", "lab"},
}

DEPTHS = {module: depth for depth, layer in enumerate(LAYERS.values()) for module in layer}
PATHS = sorted(PACKAGE_DIR.rglob("*.py"))
HANDLER = ROOT / "handlers" / "member_event.py"


def name_module(path: Path) -> str:
    """Return the name of one of our modules as the table has it."""
    return path.relative_to(PACKAGE_DIR).with_suffix("").parts[0] if path != HANDLER else HANDLER.stem


def list_imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports anywhere, by its whole name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its layer"
            assert node.module
            if node.module == PACKAGE:
                yield from (f"{PACKAGE}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def list_ours(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, as the table has them."""
    names = {name.split(".")[1] for name in list_imports(path) if name.startswith(f"{PACKAGE}.")}
    return {"__init__" if name == "__version__" else name for name in names}


def list_outside(path: Path) -> set[str]:
    """Return the modules that a file imports and that are not ours."""
    return {name for name in list_imports(path) if name.split(".")[0] != PACKAGE}


def test_table_has_exactly_our_modules() -> None:
    """Every module has a place in the table, and the table has no module that is gone."""
    assert {name_module(path) for path in PATHS} == set(DEPTHS)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(PACKAGE_DIR)))
def test_imports_point_to_earlier_layers(path: Path) -> None:
    """A module imports from earlier layers, and from its own only what the table allows."""
    module = name_module(path)
    wrong = {other for other in list_ours(path) if DEPTHS[other] >= DEPTHS[module] and (module, other) not in ALSO}
    assert not wrong


def test_exceptions_are_used() -> None:
    """No exception within a layer stays in the table after its import has gone."""
    used = {(name_module(path), other) for path in PATHS for other in list_ours(path)}
    assert used >= ALSO


@pytest.mark.parametrize("path", [*PATHS, HANDLER], ids=lambda path: path.name)
def test_packages_stay_at_home(path: Path) -> None:
    """A package that is not ours, and the starting of processes, is imported in its home alone."""
    for name in list_outside(path):
        top = name.split(".")[0]
        assert top in HOMES or top in sys.stdlib_module_names, f"{top} has no home"
        assert name_module(path) in HOMES.get(top, {name_module(path)}), f"{top} is not at home here"


@pytest.mark.parametrize("module", CHEAP)
def test_cheap_modules_import_the_cheap_set(module: str) -> None:
    """What a handler loads imports nothing but the cheapest modules and itself."""
    path = HANDLER if module == HANDLER.stem else PACKAGE_DIR / f"{module}.py"
    assert list_outside(path) <= CHEAP[module]
    assert list_ours(path) <= CHEAP.keys()


@pytest.mark.parametrize("module", LAYERS["pure"])
def test_pure_modules_cannot_touch_the_world(module: str) -> None:
    """A pure module imports nothing that reaches a file, a clock, a process or the network."""
    homes = {package for package, modules in HOMES.items() if module in modules}
    assert list_outside(PACKAGE_DIR / f"{module}.py") <= PURE_OUTSIDE | homes


def test_anything_is_caught_in_one_place() -> None:
    """`except Exception` stands once, in the resident's loop."""
    caught = [
        name_module(path)
        for path in [*PATHS, HANDLER]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or ast.unparse(node.type) == "Exception")
    ]
    assert caught == ["daemon"]
