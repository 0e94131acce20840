"""The documentation held against the code."""

import dataclasses
import re
from pathlib import Path

from serf_haproxy.settings import SETTINGS_FILE, Settings, variable

DOCS_DIR = Path(__file__).parent.parent / "docs"
ROW = re.compile(r"^\| `(SERF_HAPROXY_\w+)` \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_settings_are_documented() -> None:
    """The table of settings has every setting, in order, with its allowed values and its default, and no other."""
    rows = [row[:3] for row in ROW.findall((DOCS_DIR / "settings.md").read_text())]
    expected = []
    for field in dataclasses.fields(Settings):
        default = field.metadata["default"]
        shown = f"`{default}`" if default else "empty"
        expected.append((variable(field.name), field.metadata["kind"].allowed, shown))
    assert rows == expected


def test_settings_file_is_documented() -> None:
    """The variable that names the TOML file is explained with the settings."""
    assert SETTINGS_FILE in (DOCS_DIR / "settings.md").read_text()
