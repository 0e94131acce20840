"""A JSON Schema of the services file, for editors and other programs: all that it can say of what the reader accepts.

It cannot say which keys of two services contradict each other, nor what only counting or the settings decide: whether
shares sum to 100, whether a network has host bits, which algorithm the settings name.
"""

from typing import Any

from serf_haproxy.services import DEFAULT_SERVICE, RESERVED
from serf_haproxy.services.service import HTTP, INHERITED, KEYS, LIST, NUMBER, TABLE, TCP, TEXT, TRUTH
from serf_haproxy.services.words import HASH, PROTOCOL_CHECKS
from serf_haproxy.settings import variable

Schema = dict[str, Any]

_TYPES = {TEXT: "string", NUMBER: "number", TABLE: "object", TRUTH: "boolean"}
_NOT_OF_DEFAULT = ("mode", "routes", "bind", "sni", "stick")


def make_schema() -> Schema:
    """Return the schema."""
    taken = "|".join((*RESERVED, DEFAULT_SERVICE))
    named = {"properties": _list_keys(), "additionalProperties": False, "allOf": [*_list_rules(), *_list_mode_rules()]}
    default = {
        "properties": _list_keys(_NOT_OF_DEFAULT),
        "additionalProperties": False,
        "allOf": [*_list_rules(), _refuse("health", list(PROTOCOL_CHECKS))],
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
    if form == LIST:
        text = {"type": "string"} | schema
        items = {"anyOf": [text, {"type": "integer"}]} if key == "ports" else text
        return {"description": said, "anyOf": [{"type": "array", "items": items} | _at_least(key), text]}
    return {"description": said, "type": _TYPES[form]} | schema


def _at_least(key: str) -> Schema:
    return {"minItems": 1} if key in ("routes", "sni") else {}


def _list_rules() -> list[Schema]:
    """Return the rules of any service about keys that need others; `services.options` has them for the reader."""
    return [
        _when({"balance": {"const": HASH}}, {"required": ["hash_key"]}),
        _when({"hash_key": {}}, {"properties": {"balance": {"const": HASH}}, "required": ["balance"]}),
        _when({"split": {}}, {"properties": {"balance": {"const": "roundrobin"}}}),
        _when({"server_maxqueue": {"minimum": 1}}, _require("server_maxconn", {"minimum": 1})),
        _when({"tls": {"const": True}}, {"required": ["tls_ca_file"]}),
        *(_when({key: {}}, _require("tls", {"const": True})) for key in ("tls_ca_file", "tls_name")),
    ]


def _list_mode_rules() -> list[Schema]:
    """Return what mode http and mode tcp need, and what they do not have."""
    is_tcp = {"properties": {"mode": {"const": TCP}}, "required": ["mode"]}
    tcp = {
        "required": ["bind"],
        "properties": {
            "routes": False,
            "cookie": {"const": ""},
            "balance": {"not": {"const": "uri"}},
            "hash_key": {"const": "source"},
            "server_proto": {"const": "h1"},
            "redirect_https": {"const": False},
            "hsts_max_age_s": {"const": 0},
        },
    }
    http = {
        "required": ["routes"],
        "properties": {"bind": False, "sni": False, "stick": {"const": ""}, "mode": {"const": HTTP}},
    }
    return [{"if": is_tcp, "then": tcp, "else": {"allOf": [http, _refuse("health", list(PROTOCOL_CHECKS))]}}]


def _when(values: Schema, then: Schema) -> Schema:
    return {"if": {"properties": values, "required": list(values)}, "then": then}


def _require(key: str, value: Schema) -> Schema:
    return {"properties": {key: value}, "required": [key]}


def _refuse(key: str, words: list[str]) -> Schema:
    return {"properties": {key: {"not": {"enum": words}}}}
