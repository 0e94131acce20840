"""The documentation, compared with the code."""

import argparse
import dataclasses
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from serf_haproxy.cli.main import build_parser
from serf_haproxy.services.file import Source, read_from
from serf_haproxy.services.service import KEYS
from serf_haproxy.settings import SETTINGS_FILE, Settings, variable

ROOT = Path(__file__).parent.parent
DOCS_DIR = ROOT / "docs"
REFERENCE_DIR = DOCS_DIR / "reference"
DECISIONS_DIR = DOCS_DIR / "explanation" / "decisions"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS_DIR.rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
AVOIDED = re.compile(r"\b(?:some|no|any|every)body\b|\bwhoever\b|Tell (?=whether)", re.IGNORECASE)
ROW = re.compile(r"^\| `(SERF_HAPROXY_\w+)` \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)


def load(path: Path) -> ModuleType:
    """Return a script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def list_words(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the names of all commands and options, without hidden ones."""
    for action in parser._actions:
        if action.help != argparse.SUPPRESS:
            yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield name
                yield from list_words(command)


def list_anchors(page: Path) -> set[str]:
    """Return the anchors of a page's titles, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_making_an_application_a_node_takes_few_lines() -> None:
    """A stranger adds at most four lines to a Dockerfile, and eight to a Compose file, the balancers' included."""
    blocks = re.findall(
        r"^```\w*\n(.*?)^```$", (DOCS_DIR / "how-to" / "add-a-node.md").read_text(), re.MULTILINE | re.DOTALL
    )
    added = {block.split()[0]: len(block.splitlines()) - 1 for block in blocks if block.startswith(("FROM ", "  app:"))}
    sidecar = next(len(block.splitlines()) for block in blocks if block.startswith("  node:"))
    assert added == {"FROM": 4, "app:": 6}
    assert (added["app:"] + 1 <= 8, sidecar <= 8) == (True, True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    """Every relative link leads to a file or folder that exists, and to a title in it."""
    broken = []
    for link in LINK.findall(CODE.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in list_anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_our_words(page: Path) -> None:
    """No page uses a word that the style avoids."""
    assert AVOIDED.findall(CODE.sub("", page.read_text())) == []


def test_every_page_is_in_the_index() -> None:
    """The index links every page, but the decisions as one folder."""
    linked = {
        (DOCS_DIR / link.partition("#")[0]).resolve() for link in LINK.findall((DOCS_DIR / "README.md").read_text())
    }
    pages = {page for page in DOCS_DIR.rglob("*.md") if page.name != "README.md" and page.parent != DECISIONS_DIR}
    assert pages - linked == set()
    assert DECISIONS_DIR in linked


def test_pages_that_code_names_exist() -> None:
    """Every page of `docs/` that code, scripts or pages name by its path exists."""
    folders = [ROOT / name for name in ("agent", "handlers", "s6", "images", "tests", "docs")]
    files = [*ROOT.glob("*.*"), ROOT / "Makefile", *(path for folder in folders for path in folder.rglob("*"))]
    named = set()
    for path in files:
        if path.is_file() and path.suffix in (".py", ".j2", ".md", ".toml", ".yaml", "") and "wheels" not in path.parts:
            named.update(re.findall(r"\bdocs/[\w./-]+\.md\b", path.read_text(errors="replace")))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_tests_that_the_failure_modes_name_exist() -> None:
    """Every test that a table of the failure modes names exists."""
    named = set(re.findall(r"`((?:\w+/)?test_\w+\.py)`", (DOCS_DIR / "explanation" / "failure-modes.md").read_text()))
    assert named
    assert {name for name in named if not (ROOT / "tests" / name).exists()} == set()


@pytest.mark.parametrize("page", sorted(DECISIONS_DIR.glob("*.md")), ids=lambda page: page.stem)
def test_decisions_have_one_form(page: Path) -> None:
    """A decision has its number and title, a status, a context, the decision and its consequences."""
    text = page.read_text()
    assert text.startswith(f"# {int(page.stem[:3])}. ")
    assert "\nStatus: " in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_generated_parts_are_up_to_date() -> None:
    """The committed pages equal what `make docs` writes."""
    generate = load(DOCS_DIR / "generate.py")
    for name in generate.GENERATORS:
        text = (REFERENCE_DIR / f"{name}.md").read_text()
        assert generate.fill(text) == text, f"docs/reference/{name}.md is old: run make docs"


def test_all_commands_are_documented() -> None:
    """The reference has every command and every option."""
    text = (REFERENCE_DIR / "commands.md").read_text()
    assert {word for word in list_words(build_parser()) if word not in text} == set()


def test_man_finds_the_page_beside_the_program(tmp_path: Path) -> None:
    """With the wheel's layout `man` finds the page by PATH alone."""
    load(ROOT / "agent" / "hatch_build.py").write_share(tmp_path / "share")
    (tmp_path / "bin").mkdir()
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    argv = ["man", "--where", "serf-haproxy"]
    found = subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(tmp_path / "share" / "man" / "man1" / "serf-haproxy.1")


def test_the_man_page_has_every_command_and_option(tmp_path: Path) -> None:
    """The man page names every command and option, and groff has no complaint about it."""
    text = load(ROOT / "agent" / "hatch_build.py").make_man_page()
    plain = text.replace("\\-", "-")
    wanted = set(list_words(build_parser())) - {"-h", "--help"}
    assert {word for word in wanted if word not in plain} == set()
    assert "\n.SH EXIT STATUS\n" in text
    page = tmp_path / "serf-haproxy.1"
    page.write_text(text)
    argv = ["groff", "-man", "-Tutf8", "-ww", page]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    assert "once" in shown.stdout


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_the_completions_have_every_command_and_option(shell: str, tmp_path: Path) -> None:
    """The completion script of each shell names every command and option, and the shell can parse it."""
    text = load(ROOT / "agent" / "hatch_build.py").make_completion(shell)
    names = {word.lstrip("-") if shell == "fish" else word for word in list_words(build_parser())}
    assert {name for name in names if name not in text} == set()
    script = tmp_path / "completion"
    script.write_text(text)
    subprocess.run([shell, "-n", script], check=True)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("st", "standby status"),
        ("status --so", "--sort"),
        ("status --sort ", "level name state since address"),
        ("status -o w", "wide"),
        ("lab cr", "crash"),
        ("lab up --no", "--nodes --no-wait"),
        ("status --service ", ""),
        ("render --output pyproj", "pyproject.toml"),
    ],
)
def test_bash_completes(typed: str, offered: str) -> None:
    """In bash, what is typed is completed as the parser has it: commands, options, choices and paths."""
    script = load(ROOT / "agent" / "hatch_build.py").make_completion("bash")
    words = ["serf-haproxy", *typed.split(" ")]
    ask = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _serf_haproxy"
    show = "printf '%s\\n' \"${COMPREPLY[@]}\""
    shown = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}\n{show}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (set(shown.stdout.split()), shown.stderr) == (set(offered.split()), "")


def test_settings_are_documented() -> None:
    """The table of settings has exactly the settings, in order, with allowed values and defaults."""
    rows = [row[:3] for row in ROW.findall((REFERENCE_DIR / "settings.md").read_text())]
    expected = []
    for field in dataclasses.fields(Settings):
        default = field.metadata["default"]
        shown = f"`{default}`" if default else "empty"
        expected.append((variable(field.name), field.metadata["kind"].allowed, shown))
    assert rows == expected


@pytest.mark.parametrize(
    "page",
    [
        "reference/services.md",
        "how-to/serve-several-services.md",
        "how-to/keep-clients-at-their-server.md",
        "how-to/scale-with-the-load.md",
        "reference/scale.md",
        "how-to/get-certificates-with-certbot.md",
    ],
)
def test_examples_of_the_services_file_are_right(page: str) -> None:
    """Each example of a services file has no fault, and names further services."""
    texts = re.findall(r"```toml\n(.*?)```", (DOCS_DIR / page).read_text(), re.DOTALL)
    assert texts
    for text in texts:
        services = read_from(Source(page, Settings()), text.replace("\n   ", "\n"))
        assert services.faults == ()
        assert len(services.listed) > 1


def test_settings_file_is_documented() -> None:
    """The page of settings documents the variable that names the TOML file."""
    assert SETTINGS_FILE in (REFERENCE_DIR / "settings.md").read_text()


def test_variables_of_the_tree_and_the_images_are_documented() -> None:
    """Every variable that a script of the s6 tree or the images reads is documented."""
    read: set[str] = set()
    for path in [*(ROOT / "s6").rglob("*"), *(ROOT / "images").rglob("*")]:
        text = path.read_text(errors="replace") if path.is_file() else ""
        if text.startswith("#!/bin/sh"):
            read.update(re.findall(r"\$\{?([A-Z][A-Z_]+)", text))
        elif path.suffix == ".py":
            read.update(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', text))
    assert {"SERF_JOIN", "HAPROXY_STOP_S", "APP_PORT", "SERF_HAPROXY_CONFIG_PATH"} <= read
    pages = [
        REFERENCE_DIR / "images.md",
        REFERENCE_DIR / "node-bundle.md",
        REFERENCE_DIR / "settings.md",
        DOCS_DIR / "how-to" / "run-further-services.md",
        DOCS_DIR / "how-to" / "run-two-balancers.md",
    ]
    written = set(re.findall(r"\w+", "".join(page.read_text() for page in pages)))
    assert read - written - {"NF", "PWD", "STOPPING", "SERF_RPC_AUTH"} == set()


def test_the_table_of_services_shows_every_default() -> None:
    """Each key of a service says what counts without it, and what is a list of words reads as one."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (.+) \| (.+) \|$", (REFERENCE_DIR / "services.md").read_text(), re.MULTILINE
    )
    shown = {name: (allowed, meaning.rpartition("; default: ")[2]) for name, _, allowed, meaning in rows}
    assert shown.keys() == KEYS.keys()
    assert [name for name, *_, meaning in rows if "; default: " not in meaning] == []
    assert (shown["stick_size"][1], shown["stick_expire_s"][1], shown["tls"][1]) == ("100000", "3600", "false")
    assert shown["health"] == ("one of http, tcp, pgsql, redis, mysql, smtp", "the mode")


def test_the_table_of_rooms_names_every_module() -> None:
    """Each room whose modules the architecture lists has all of them there, and no other."""
    text = (DOCS_DIR / "explanation" / "architecture.md").read_text()
    rooms = dict(re.findall(r"^\| `(\w+)/` \|[^|]*\| (.*`.*) \|$", text, re.MULTILINE))
    assert {"system", "services", "policy", "control"} <= rooms.keys()
    for room, cell in rooms.items():
        modules = {path.stem for path in (ROOT / "agent" / "serf_haproxy" / room).glob("*.py")} - {"__init__"}
        named = set(re.findall(r"`(\w+)`", cell))
        # Of the command line it lists only the entrance.
        assert named == modules or (room == "cli" and named < modules), room
