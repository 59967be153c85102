"""`kiki helm`: the chart's values, what it renders, and the guide's security checklist over that."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kiki.cli import show
from kiki.cli.options import Json

app = typer.Typer(
    help="Look at the Helm chart before a cluster does: its values, its manifests, its safety.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Environment = Annotated[
    Literal["dev", "staging", "prod"] | None,
    typer.Option("--env", help="Profile over the chart's defaults: values-dev, values-staging or values-prod."),
]
Files = Annotated[
    list[Path] | None,
    typer.Option("-f", "--values", metavar="FILE", help="Values file over the profile. Repeatable, the last one wins."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Value over every file, as Helm reads it. Repeatable."),
]


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text):
        raise typer.BadParameter(f"{text!r} is no namespace: write lower-case letters, digits and dashes, at most 63")
    return text


Namespace = Annotated[
    str,
    typer.Option("--namespace", "-n", metavar="NAME", callback=_namespace, help="Namespace of the release."),
]


@app.command("values")
def values_command(
    environment: Environment = None, files: Files = None, sets: Sets = None, as_json: Json = False
) -> None:
    """Merge the values as Helm does, check them, and print what the templates would see.

    Exit code 1 with every mistake when they cannot be used. No engine is needed.
    """
    from kiki.chart.layers import read_layers, with_defaults

    merged = with_defaults(read_layers(environment, files or [], sets or []))
    if as_json:
        show.as_json(merged)
    else:
        show.line(_yaml(merged).rstrip("\n"))


@app.command()
def render(
    environment: Environment = None,
    files: Files = None,
    sets: Sets = None,
    namespace: Namespace = "kiki",
    as_json: Json = False,
) -> None:
    """Print the manifests that the chart gives for these values.

    Renders with the `helm` on PATH, else with the extra 'helm'. With --json: one list of objects.
    """
    from kiki.chart.engine import render_documents
    from kiki.chart.layers import read_layers
    from kiki.chart.manifest import joined, objects

    found = render_documents(read_layers(environment, files or [], sets or []), namespace=namespace)
    if as_json:
        show.as_json(objects(found))
    else:
        print(joined(found), end="")


@app.command()
def check(
    environment: Environment = None,
    files: Files = None,
    sets: Sets = None,
    namespace: Namespace = "kiki",
    as_json: Json = False,
) -> None:
    """Check the ten lines of the deployment guide's security checklist in what the chart renders.

    A line passes, fails and says where, or lies outside the render and says which command shows it. Exit code 3 when one
    fails.
    """
    from kiki.chart.checklist import Render, checklist
    from kiki.chart.engine import render_documents
    from kiki.chart.layers import read_layers, with_defaults
    from kiki.chart.manifest import objects

    layers = read_layers(environment, files or [], sets or [])
    found = objects(render_documents(layers, namespace=namespace))
    values = with_defaults(layers)
    lines = checklist(Render(found, values, values["global"]["namespace"] or namespace))
    if as_json:
        show.as_json(
            [
                {"check": one.check, "state": one.state, "where": list(one.where), "command": one.command}
                for one in lines
            ]
        )
    else:
        for one in lines:
            show.line(f"{one.state:<19}{one.check}")
            for where in one.where:
                show.line(f"{'':<19}  {where}")
            if one.command:
                show.line(f"{'':<19}  $ {one.command}")
    if any(one.state == "fail" for one in lines):
        raise typer.Exit(show.EXIT_REFUSED)


def _yaml(values: dict[str, Any]) -> str:
    import yaml

    # Through JSON, so that YAML finds no two places with one object and writes no anchors.
    return yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, allow_unicode=True, width=120)
