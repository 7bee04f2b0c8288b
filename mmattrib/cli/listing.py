"""``mmattrib backbones``, ``methods``, ...: list what is registered; ``plugins`` too."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from mmattrib.cli.options import describe_options
from mmattrib.cli.program import COMMANDS
from mmattrib.cli.speech import clean, say, tell
from mmattrib.plugins import PluginInfo, Plugins, default_plugins
from mmattrib.plugins.registry import KINDS, Entry, Kind, Registry, conflict_message

if TYPE_CHECKING:
    from mmattrib.types import JSONValue

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def listing(kind: Kind) -> click.Command:
    """The command that lists what is registered of a kind."""

    @click.command(f"{kind}s")
    @click.argument("name", required=False)
    @click.option(
        "--all", "research", is_flag=True, help="Also list those kept for comparison only."
    )
    @json_option
    def command(name: str | None, research: bool, as_json: bool) -> None:
        if name is not None:
            _show(kind, name, as_json)
        else:
            _list(kind, as_json, research)

    noun = "data set" if kind == "dataset" else kind
    command.help = (
        f"List the {noun}s{_TELLS.get(kind, '')}.\n\nWith NAME: the options of one, with their "
        "types, defaults and what is accepted."
    )
    return command


_WIDTH, _INDENT = 82, "      "
_TELLS: dict[Kind, str] = {
    "backbone": " (models that embed two or more kinds of input), what they embed and need",
    "method": ": what can make the maps",
    "metric": ": what `mmattrib evaluate` can measure",
    "dataset": ": what `mmattrib evaluate` can measure on",
    "writer": ": the file suffixes that --out takes",
}
backbones, methods, metrics, datasets, writers = (
    listing(kind) for kind in ("backbone", "method", "metric", "dataset", "writer")
)


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List the plugins, what they give and their problems."""
    loaded = default_plugins()
    loaded.commands(own=COMMANDS)
    described = describe_plugins(loaded)
    if as_json:
        tell(described)
    else:
        say(_plugins_text(described))


def describe_entries(registry: Registry, kind: Kind, research: bool) -> list[JSONValue]:
    """The entry of each registered name of a kind, for JSON; ``research`` adds research names.

    ``state`` is ``"ready"``, ``"missing"`` or ``"conflict"``; ``todo`` says how to change that.
    """
    entries = registry.entries(kind)
    return [_describe(registry, entry) for entry in entries if research or not entry.research]


def _describe(registry: Registry, entry: Entry) -> JSONValue:
    missing = entry.missing()
    state, todo = "ready", None
    if registry.is_conflicting(entry.kind, entry.name):
        state = "conflict"
        todo = "taken twice: see `mmattrib plugins`"
    elif missing:
        state = "missing"
        todo = entry.install_command() or f"install what provides {', '.join(missing)}"
    found: dict[str, JSONValue] = {
        "name": entry.name,
        "state": state,
        "todo": todo,
        "missing": list(missing),
        "summary": entry.summary,
        "distribution": entry.distribution,
        "version": entry.version,
    }
    if entry.kind == "backbone":
        found["modalities"] = list(entry.modalities)
    return found


def describe_plugins(loaded: Plugins) -> dict[str, JSONValue]:
    """Every plugin with what it gives, every problem and every name taken twice, for JSON."""
    registry = loaded.registry
    return {
        "plugins": [_describe_plugin(registry, info) for info in loaded.infos],
        "problems": [
            {"distribution": p.distribution, "stage": p.stage, "message": p.message}
            for p in loaded.problems
        ],
        "conflicts": [
            {
                "kind": claims[0].kind,
                "name": claims[0].name,
                "distributions": [entry.distribution for entry in claims],
                "message": conflict_message(claims),
            }
            for claims in registry.conflicts()
        ],
    }


def _describe_plugin(registry: Registry, info: PluginInfo) -> JSONValue:
    gives = {
        f"{kind}s": [e.name for e in registry.entries(kind) if e.plugin == info.name]
        for kind in KINDS
    }
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "hooks": list(info.hooks),
        "gives": {kinds: names for kinds, names in gives.items() if names},
    }


def _list(kind: Kind, as_json: bool, research: bool) -> None:
    loaded = default_plugins()
    described = describe_entries(loaded.registry, kind, research)
    if as_json:
        tell(described)
        return
    if described:
        say(table(_heads(kind), [_row(kind, entry) for entry in described]))
    else:
        say(f"No {kind} is registered.")
    if loaded.problems or loaded.registry.conflicts():
        say("Warning: some plugins have problems; see `mmattrib plugins`.", err=True)


def _show(kind: Kind, name: str, as_json: bool) -> None:
    """One name, with its options."""
    registry = default_plugins().registry
    entry = registry.get(kind, name)
    described = {**_describe(registry, entry), "options": describe_options(entry)}
    if as_json:
        tell(described)
        return
    lines = [f"{name}: {entry.summary}".rstrip(": "), f"from {entry.source}"]
    does = "holds" if kind == "dataset" else "embeds"
    lines += [f"{does} {', '.join(entry.modalities)}"] if entry.modalities else []
    lines += [f"not ready: {described['todo']}"] if described["todo"] else []
    lines += ["", "Options:"] if described["options"] else ["", "It takes no options."]
    for option in described["options"]:
        lines += _option_lines(option)
    say("\n".join(lines))


def _option_lines(option: Mapping[str, JSONValue]) -> list[str]:
    kind = f"{option['type']}, " if option["type"] else ""
    default = "required" if option["required"] else f"default {option['default']}"
    accepted = f"; {option['accepted']}" if option["accepted"] else ""
    head = f"  {option['name']}  ({kind}{default}{accepted})"
    said = textwrap.wrap(
        option["summary"], _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT
    )
    return [head, *said]


def _heads(kind: Kind) -> list[str]:
    modalities = ["MODALITIES"] if kind == "backbone" else []
    return ["NAME", *modalities, "STATE", "FROM", "SUMMARY"]


def _row(kind: Kind, entry: JSONValue) -> list[str]:
    modalities = [", ".join(entry["modalities"])] if kind == "backbone" else []
    state = entry["todo"] or entry["state"]
    source = f"{entry['distribution']} {entry['version']}".rstrip()
    return [entry["name"], *modalities, state, source, entry["summary"]]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns; the last one is as wide as it likes."""
    lines = [heads, *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _plugins_text(described: dict[str, JSONValue]) -> str:
    lines = []
    for plugin in described["plugins"]:
        lines.append(f"{plugin['name']}  ({plugin['distribution']} {plugin['version']})".strip())
        lines += [f"  {kinds}: {', '.join(names)}" for kinds, names in plugin["gives"].items()]
    for problem in described["problems"]:
        lines.append(
            f"Problem: {problem['distribution']}, {problem['stage']}: {problem['message']}"
        )
    lines += [f"Problem: {conflict['message']}" for conflict in described["conflicts"]]
    return "\n".join(lines) if lines else "No plugin is loaded."
