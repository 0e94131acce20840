"""The documentation, compared with the code."""

import dataclasses
import re
from pathlib import Path

from serf_haproxy.settings import SETTINGS_FILE, Settings, variable

ROOT = Path(__file__).parent.parent
DOCS_DIR = ROOT / "docs"
ROW = re.compile(r"^\| `(SERF_HAPROXY_\w+)` \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_settings_are_documented() -> None:
    """The table of settings has exactly the settings, in order, with allowed values and defaults."""
    rows = [row[:3] for row in ROW.findall((DOCS_DIR / "settings.md").read_text())]
    expected = []
    for field in dataclasses.fields(Settings):
        default = field.metadata["default"]
        shown = f"`{default}`" if default else "empty"
        expected.append((variable(field.name), field.metadata["kind"].allowed, shown))
    assert rows == expected


def test_settings_file_is_documented() -> None:
    """The page of settings documents the variable that names the TOML file."""
    assert SETTINGS_FILE in (DOCS_DIR / "settings.md").read_text()


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
    written = set(re.findall(r"\w+", "".join((DOCS_DIR / f"{name}.md").read_text() for name in ("images", "settings"))))
    assert read - written - {"PWD", "STOPPING", "SERF_RPC_AUTH"} == set()
