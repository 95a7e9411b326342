"""Holds a value against that part of JSON Schema (draft 2020-12) which docs/json/ uses. What is not declared is a fault."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
    "array": (list,), "object": (dict,),
}  # fmt: skip
_KNOWN = {"$schema", "title", "description", "type", "properties", "required", "$defs", "$ref", "anyOf", "items",
          "additionalProperties", "const"}  # fmt: skip


def faults(value: Any, schema: dict[str, Any], whole: dict[str, Any], where: str = "$") -> Iterator[str]:
    """`whole`: the schema that `$ref` looks into."""
    assert set(schema) <= _KNOWN, f"this validator does not know {set(schema) - _KNOWN}"
    if "$ref" in schema:
        yield from faults(value, whole["$defs"][schema["$ref"].rpartition("/")[2]], whole, where)
    if "anyOf" in schema and all(list(faults(value, each, whole, where)) for each in schema["anyOf"]):
        yield f"{where} is none of these"
    if "const" in schema and value != schema["const"]:
        yield f"{where} is not {schema['const']}"
    kind = schema.get("type")
    if kind and (not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{where} is no {kind}"
    elif kind == "object":
        yield from _of_object(value, schema, whole, where)
    elif kind == "array":
        for number, each in enumerate(value):
            yield from faults(each, schema["items"], whole, f"{where}[{number}]")


def _of_object(value: dict[str, Any], schema: dict[str, Any], whole: dict[str, Any], where: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    yield from (f"{where}.{name} is missing" for name in schema.get("required", []) if name not in value)
    for name, each in value.items():
        inner = properties.get(name, schema.get("additionalProperties"))
        if inner is None:
            yield f"{where}.{name} is not declared"
        else:
            yield from faults(each, inner, whole, f"{where}.{name}")
