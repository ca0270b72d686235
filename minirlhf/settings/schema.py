"""Say what a setting accepts, in words, from the JSON schema of a pydantic model."""

import difflib
from typing import TYPE_CHECKING, Any

from minirlhf.runtime.errors import UserError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Schema = dict[str, Any]
Place = tuple[int | str, ...]  # the keys, and positions in lists, that lead to a setting
KINDS = {"integer": "an integer", "number": "a number", "string": "text", "boolean": "true or false",
         "null": "null", "array": "a list", "object": "a group of settings"}  # fmt: skip
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def narrow(node: Schema, value: Any, schema: Schema, path: Place = ()) -> Schema:
    """The schema of `value` in which every choice between groups that a key tells apart (`kind`) is made.

    Raises:
        UserError: that key is missing, or names no group.
    """
    node = _resolve(node, schema)
    if "anyOf" in node:
        return {**node, "anyOf": [narrow(branch, value, schema, path) for branch in node["anyOf"]]}
    if not isinstance(value, dict):
        return node
    if "discriminator" in node:
        key, groups = node["discriminator"]["propertyName"], node["discriminator"]["mapping"]
        if key not in value:
            raise UserError(f"{_dotted((*path, key))}: missing; expected one of {', '.join(groups)}")
        if value[key] not in list(groups):
            expected = f"expected one of {', '.join(groups)}, got {_show(value[key])}"
            raise UserError(f"{_dotted((*path, key))}: {expected}")
        node = _resolve({"$ref": groups[value[key]]}, schema)
    properties = node.get("properties", {})
    chosen = {key: narrow(child, value.get(key), schema, (*path, key)) for key, child in properties.items()}
    return {**node, "properties": chosen} if properties else node


def check_keys(value: Any, schema: Schema, path: Place = ()) -> None:
    """Raise UserError unless `value` has the schema's keys and no others at every depth, defaults or not."""
    node = lookup(schema, path)
    accepted = node.get("properties")
    if accepted is None:
        for index, item in enumerate(value if isinstance(value, list) and "items" in node else ()):
            check_keys(item, schema, (*path, index))
        return
    if not isinstance(value, dict):
        if path and "anyOf" in lookup(schema, path, whole=True) and value is None:
            return
        raise UserError(f"{_dotted(path)}: expected the settings {', '.join(accepted)}, got {_show(value)}")
    for key in value:
        if key not in accepted:
            close = difflib.get_close_matches(str(key), accepted, n=1)
            guess = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(accepted)}"
            raise UserError(f"{_dotted((*path, key))}: unknown setting; {guess}")
    for key in accepted:
        if key not in value:
            raise UserError(f"{_dotted((*path, key))}: missing; expected {describe(schema, (*path, key))}")
        check_keys(value[key], schema, (*path, key))


def describe_error(error: "ErrorDetails", schema: Schema) -> str:
    """One line for the first error of a pydantic ValidationError."""
    path: Place = ()
    for part in error["loc"]:
        if lookup(schema, (*path, part), whole=True):  # pydantic adds the branch of a union to the path
            path += (part,)
    if error["type"] == "value_error":  # one of our own checks between settings
        return f"{_dotted(path)}: {error['ctx']['error']}" if path else str(error["ctx"]["error"])
    return f"{_dotted(path)}: expected {describe(schema, path)}, got {_show(error['input'])}"


def describe(schema: Schema, path: Place) -> str:
    """What the setting at `path` accepts: "a number > 0", "one of cpu, cuda", "an integer >= 1 or null"."""
    return _describe(lookup(schema, path, whole=True), schema)


def _describe(node: Schema, schema: Schema) -> str:
    if "$ref" in node:
        node = _resolve(node, schema)
    if "anyOf" in node:
        return " or ".join(_describe(branch, schema) for branch in node["anyOf"])
    if "oneOf" in node:
        return KINDS["object"]
    if "enum" in node:
        return "one of " + ", ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    bounds = " and ".join(f"{sign} {node[key]:g}" for key, sign in BOUNDS.items() if key in node)
    kind = KINDS.get(node.get("type", ""), "another value")
    if kind == "a list" and "items" in node:
        return f"a list, each of it {_describe(node['items'], schema)}"
    if node.get("minLength"):
        return f"{kind} that is not empty"
    return f"{kind} {bounds}".strip()


def lookup(schema: Schema, path: Place, whole: bool = False) -> Schema:
    """The schema of the setting at `path`; of a `group | None` the group, unless the `whole` is asked for."""
    node = schema
    for part in path:
        group = _group(node, schema)
        node = group.get("properties", {}).get(part) or group.get("items") or {}
    return node if whole else _group(node, schema)


def _group(node: Schema, schema: Schema) -> Schema:
    branches = [_resolve(branch, schema) for branch in node.get("anyOf", [node])]
    return next((branch for branch in branches if "properties" in branch), branches[0])


def _resolve(node: Schema, schema: Schema) -> Schema:
    return schema["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path)) or "params"


def _show(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
