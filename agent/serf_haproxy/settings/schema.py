"""The settings as a TOML file has them, and a JSON Schema of such a file."""

import dataclasses
import json
from typing import Any

from serf_haproxy.settings.load import Loaded
from serf_haproxy.settings.values import Settings, variable

_NUMBERS = ("number", "integer")


def format_settings(loaded: Loaded, *, has_origins: bool) -> str:
    """Return all settings as lines of TOML.

    Args:
        loaded: The settings.
        has_origins: Whether a comment says where each comes from.
    """
    lines = [f"# settings file: {loaded.path or 'none'}"]
    for field in dataclasses.fields(Settings):
        text = loaded.texts[field.name]
        is_number = field.metadata["kind"].schema.get("type") in _NUMBERS
        origin = f"  # {loaded.origins[field.name]}" if has_origins else ""
        lines.append(f"{field.name} = {text if is_number else json.dumps(text)}{origin}")
    return "\n".join(lines)


def make_schema() -> dict[str, Any]:
    """Return a JSON Schema, draft 2020-12, of the settings file."""
    properties: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        kind = field.metadata["kind"]
        text = f"{field.metadata['doc']}; {kind.allowed}; the variable is {variable(field.name)}"
        properties[field.name] = {"description": text, "default": field.metadata["default"]} | _list_types(kind.schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of serf-haproxy",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _list_types(schema: Any) -> dict[str, Any]:
    if schema.get("type") in _NUMBERS:
        return dict(schema)
    return {"type": ["string", "boolean", "number", "array"]} | dict(schema)
