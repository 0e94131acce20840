"""A JSON Schema of the services file, for editors and other programs: all that it can say of what the reader accepts.

It cannot say which keys of two services contradict each other, nor what only counting or the settings decide: whether
shares sum to 100, whether a network has host bits, which algorithm the settings name.
"""

from collections.abc import Callable, Mapping
from typing import Any

from serf_haproxy.services import DEFAULT_SERVICE, RESERVED
from serf_haproxy.services.options import NOT_OF_DEFAULT, Condition, list_rules
from serf_haproxy.services.scaling import PLACE, SCALE_KEYS, SLOT, SPECIAL, list_needed
from serf_haproxy.services.service import HTTP, INHERITED, KEYS, LIST, NUMBER, SETTINGS, TABLE, TEXT, TRUTH
from serf_haproxy.settings import variable

Schema = dict[str, Any]

_TYPES = {TEXT: "string", NUMBER: "number", TABLE: "object", TRUTH: "boolean"}
_ZERO: Schema = {  # only requests of HTTP can wait while there is no server
    "if": {"properties": {"mode": {"not": {"const": HTTP}}}, "required": ["mode"]},
    "then": {"properties": {"scale": {"properties": {"min": {"minimum": 1}}}}},
}
_EMPTY: Schema = {"enum": ["", []]}  # a list of nothing


def make_schema() -> Schema:
    """Return the schema."""
    taken = "|".join((*RESERVED, DEFAULT_SERVICE))
    rules = [*_list_rules(is_default=False), _ZERO]
    named = {"properties": _list_keys(), "additionalProperties": False, "allOf": rules}
    default = {
        "properties": _list_keys(NOT_OF_DEFAULT),
        "additionalProperties": False,
        "allOf": _list_rules(is_default=True),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The services file of serf-haproxy",
        "type": "object",
        "properties": {DEFAULT_SERVICE: {"type": "object", "description": "the default service"} | default},
        "patternProperties": {f"^(?!(?:{taken})$)[a-z][a-z0-9-]{{0,30}}$": {"type": "object"} | named},
        "additionalProperties": False,
    }


def _list_keys(without: tuple[str, ...] = ()) -> Schema:
    return {key: _describe(key) for key in KEYS if key not in without}


def _describe(key: str) -> Schema:
    """Return the schema of a key's value."""
    kind, form, doc = (KEYS[key].metadata[name] for name in ("kind", "form", "doc"))
    said = f"{doc}; default: the setting {variable(key)}" if key in INHERITED else doc
    schema: Schema = dict(kind.schema)
    if key == "scale":
        return {"description": said} | _describe_scale()
    if form == LIST:
        text = {"type": "string"} | schema
        word = text | {"minLength": 1}
        items = {"anyOf": [word, {"type": "integer"}]} if key == "ports" else word
        return {"description": said, "anyOf": [{"type": "array", "items": items} | _at_least(key), text]}
    return {"description": said, "type": _TYPES[form]} | schema


def _describe_scale() -> Schema:
    """Return the schema of the table `scale`."""
    properties = {}
    for key, field in SCALE_KEYS.items():
        kind, form, doc = (field.metadata[name] for name in ("kind", "form", "doc"))
        described = _list_texts(kind.schema) if form == LIST else {"type": _TYPES[form]} | kind.schema
        properties[key] = {"description": doc} | described
    for key in ("start", "stop"):
        properties[key] = properties[key] | {"contains": {"pattern": f"{_quote(SLOT)}|{_quote(PLACE)}"}}
    rules = []
    for executor in SCALE_KEYS["executor"].metadata["kind"].schema["enum"]:
        others = {key: False for key, executors in SPECIAL.items() if executor not in executors}
        then = {"required": list(list_needed(executor)), "properties": others}
        rules.append({"if": {"properties": {"executor": {"const": executor}}}, "then": then})
    table = {"type": "object", "properties": properties, "additionalProperties": False, "allOf": rules}
    return table | {"required": list(list_needed(""))}


def _list_texts(each: Mapping[str, Any]) -> Schema:
    """Return the schema of a list of texts, each of which has a schema."""
    items = {"type": "string", "minLength": 1} | dict(each)
    return {"type": "array", "items": items, "minItems": 1, "maxItems": 100}


def _quote(placeholder: str) -> str:
    return placeholder.replace("{", "\\{").replace("}", "\\}")


def _at_least(key: str) -> Schema:
    return {"minItems": 1} if key in ("routes", "sni") else {}


def _list_rules(is_default: bool) -> list[Schema]:
    """Return the rules about keys that need others."""
    return [
        {"if": _fulfil(rule.when, _is_sure), "then": _fulfil(rule.needs, _is_possible)}
        for rule in list_rules(is_default)
    ]


def _fulfil(condition: Condition, without: Callable[[Condition], bool]) -> Schema:
    """Return the schema of the tables that fulfil a condition; `without` says whether those without the key do."""
    key, values, is_one = condition
    allowed = _EMPTY if values == ((),) else {"enum": list(values)}
    properties = {"properties": {key: allowed if is_one else {"not": allowed}}}
    return properties if without(condition) else properties | {"required": [key]}


def _is_sure(condition: Condition) -> bool:
    """Return whether a table without the key fulfils a condition, whatever the settings say."""
    key, values, is_one = condition
    return key not in INHERITED and (KEYS[key].default in values) is is_one


def _is_possible(condition: Condition) -> bool:
    """Return whether a table without the key fulfils a condition, or may do so by the settings."""
    key, values, is_one = condition
    if key not in INHERITED or not is_one:
        return key in INHERITED or _is_sure(condition)
    return KEYS[key].default in values or any(_is_allowed(key, value) for value in values)


def _is_allowed(key: str, value: str) -> bool:
    """Return whether the setting of this name may have a value."""
    try:
        SETTINGS[key].metadata["kind"].read(value)
    except (ValueError, KeyError):
        return False
    return True
