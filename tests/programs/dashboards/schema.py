"""Holds dashboards to Grafana's published schema, as far as the package grafana-foundation-sdk has it as types.

Each dashboard is decoded into the types of its parts (panels, their options, queries, variables), every field is compared with
its annotation, and what is encoded again must have all that was read: a field that the schema does not know gets lost there.
"""

import enum
import json
import sys
import types
import typing

from grafana_foundation_sdk.cog import plugins, runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard, units

UNITS = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}


def lost(before, after, at):
    """What is in `before` and not in `after`; what the types add is no loss."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{at}.{key}: the schema does not know it"
            else:
                yield from lost(value, after[key], f"{at}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (b, a) in enumerate(zip(before, after)):
            yield from lost(b, a, f"{at}[{i}]")
    elif before != after:
        yield f"{at}: {before!r} became {after!r}"


def encoded(value):
    return json.loads(JSONEncoder().encode(value))


def fits(value, wanted):
    """True where a value is what an annotation says."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted in (typing.Any, object):
        return True
    if wanted in (None, type(None)):
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, arguments[1]) for item in value.values())
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return value in [member.value for member in wanted] or isinstance(value, wanted)
    if isinstance(value, dict) and hasattr(wanted, "from_json"):
        # The package leaves some parts as they are: links and transformations of panels.
        part = wanted.from_json(value)
        return not [*lost(value, encoded(part), ""), *misfits(part, "")]
    return isinstance(value, wanted)


def misfits(value, at):
    """Fields that are not of their type, down from an object."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from misfits(item, f"{at}[{i}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from misfits(item, f"{at}.{key}")
    elif type(value).__module__.startswith("grafana_foundation_sdk.models"):
        if isinstance(value, enum.Enum):
            return
        hints = typing.get_type_hints(type(value))
        for name, item in vars(value).items():
            if name in hints and not fits(item, hints[name]):
                yield f"{at}.{name}: {item!r} is no {hints[name]}"
            yield from misfits(item, f"{at}.{name}")


def unknown_units(panels):
    for panel in panels:
        configured = panel.get("fieldConfig", {})
        properties = [p for o in configured.get("overrides", []) for p in o["properties"] if p["id"] == "unit"]
        for unit in [configured.get("defaults", {}).get("unit")] + [p["value"] for p in properties]:
            if unit is not None and unit not in UNITS and not unit.startswith("suffix:"):
                yield f"panel {panel['title']!r}: Grafana has no unit {unit!r}"


def unknown_types(panels):
    for panel in panels:
        if panel["type"] != "row" and runtime.panelcfg_config(panel["type"]) is None:
            yield f"panel {panel['title']!r}: Grafana has no panel {panel['type']!r}"


def main(paths):
    plugins.register_default_plugins()
    problems = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            before = json.load(file)
        decoded = dashboard.Dashboard.from_json(before)
        panels = before["panels"]
        found = [*lost(before, encoded(decoded), ""), *misfits(decoded, ""), *unknown_types(panels), *unknown_units(panels)]
        problems += [f"{path}: {problem}" for problem in found]
        newest = dashboard.Dashboard().schema_version
        if before["schemaVersion"] != newest:
            problems.append(f"{path}: schemaVersion {before['schemaVersion']}, and the newest is {newest}")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
