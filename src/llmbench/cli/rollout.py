"""`llmbench rollout`: a new variant that is given a route's requests step by step, and watched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from llmbench.cli import completion, terminal
from llmbench.cli.arguments import Json
from llmbench.cli.running import Recipe, Socket, ask, at, show_shadows
from llmbench.cli.terminal import print_json
from llmbench.errors import LlmbenchError

_HELP = """Give a new variant the requests of a route step by step, and take them away as soon as it is worse.

A rollout compares the new variant with the one that answers now, on guard-rails: errors, first token, length, abstention,
citations; votes and a judge's scores where the route asks for them. Its verdicts hold however often they are looked at. What it
decides, and by what evidence, is in `audit.jsonl`.
"""

Route = Annotated[
    str, typer.Argument(metavar="ROUTE", help="A route of the serving document.", autocompletion=completion.routes)
]
_WIDTH = 41


def register(cli: typer.Typer) -> None:
    """Adds this verb, and the verbs under it."""
    epilog = "Examples: `llmbench rollout start support --to mine` · `llmbench rollout status support`"
    group = typer.Typer(help=_HELP, epilog=epilog, no_args_is_help=True)
    group.command(epilog="Example: `llmbench rollout start support --to mine --plan 5,25,50,100`")(start)
    group.command(epilog="Example: `llmbench rollout status support --html rollout.html`")(status)
    group.command("list", epilog="Example: `llmbench rollout list`")(list_rollouts)
    group.command(epilog="Example: `llmbench rollout pause support`")(pause)
    group.command(epilog="Example: `llmbench rollout resume support`")(resume)
    group.command(epilog="Example: `llmbench rollout abort support`")(abort)
    cli.add_typer(group, name="rollout")


def start(
    route: Route,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="VARIANT",
            help="The variant to roll out; it must already be served.",
            autocompletion=completion.variants,
        ),
    ],
    plan: Annotated[
        str | None, typer.Option(metavar="PERCENTS", help="Steps, such as 5,25,50,100.", show_default=False)
    ] = None,
    least: Annotated[
        int | None, typer.Option(min=1, help="Units that it must answer in a step before the next.", show_default=False)
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(min=1, help="End as inconclusive after this many units in the last step below 100 %.", show_default=False),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Probability of rolling back a variant that is no worse, over the whole rollout.", show_default=False
        ),
    ] = None,
    guardrail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MARGIN",
            help="Override a margin (errors=0.05) or turn a guard-rail off (errors=off). Repeatable.",
            show_default=False,
        ),
    ] = None,
    recipe: Recipe = None,
    socket: Socket = None,
    as_json: Json = False,
) -> None:
    """Start a rollout. Margins and steps are fixed once it starts; options override the document.

    A unit is what `sticky` keeps together, such as a user; each counts once in a step.
    """
    path = at(recipe, socket)
    body: dict[str, Any] = {"route": route, "canary": to}
    options = {"plan": _percents(plan) if plan else None, "least": least, "most": most, "alpha": alpha}
    given = {name: value for name, value in options.items() if value is not None}
    if given or guardrail:
        spec = _document(path, route)
        body["rollout"] = spec["rollout"] | given
        body["guardrails"] = spec["guardrails"] | _margins(guardrail or [])
    _show(ask(path, "POST", "/rollouts", body), as_json)


def status(
    route: Route,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots.", show_default=False)
    ] = None,
    recipe: Recipe = None,
    socket: Socket = None,
    as_json: Json = False,
) -> None:
    """Show how the rollout of a route stands: each guard-rail with its bounds, what it waits for, and what was decided."""
    from llmbench import workspace, written
    from llmbench.gateway.traffic import drawing

    if html is not None:
        written.check_file(html, drawing.MARK)
    told = ask(at(recipe, socket), "GET", f"/rollouts/{quote(route, safe='')}")
    if html is not None:
        workspace.write_text(html, drawing.html(told))
    _show(told, as_json)


def list_rollouts(recipe: Recipe = None, socket: Socket = None, as_json: Json = False) -> None:
    """List the routes with how their requests are divided, and their present or last rollouts."""
    path = at(recipe, socket)
    told, rollouts = ask(path, "GET", "/routes"), ask(path, "GET", "/rollouts")["rollouts"]
    routes = told["routes"]
    if as_json:
        print_json({"routes": routes, "rollouts": rollouts, "shadows": told.get("shadows", [])})
        return
    if not routes:
        print("The document has no routes. Add one under routes:, and run: llmbench variants reload")
        return
    last = {row["route"]: row for row in rollouts}
    rows = [["route", "variants", "sticky", "rollout", "state"]]
    for card in routes:
        among = ", ".join(f"{one['name']} {one['share']:g} %" for one in card["variants"])
        row = last.get(card["id"])
        rows.append(
            [
                card["id"],
                among,
                card["sticky"],
                f"{row['number']}: {row['canary']}" if row else "-",
                row["state"] if row else "-",
            ]
        )
    terminal.listing(rows, shrink=(1, 3, 0))
    show_shadows(told.get("shadows", ()))


def pause(route: Route, recipe: Recipe = None, socket: Socket = None, as_json: Json = False) -> None:
    """Take no further step. The share stays, and the new variant is still rolled back if it is worse."""
    _show(ask(at(recipe, socket), "POST", f"/rollouts/{quote(route, safe='')}/pause"), as_json)


def resume(route: Route, recipe: Recipe = None, socket: Socket = None, as_json: Json = False) -> None:
    """Continue a paused rollout."""
    _show(ask(at(recipe, socket), "POST", f"/rollouts/{quote(route, safe='')}/resume"), as_json)


def abort(route: Route, recipe: Recipe = None, socket: Socket = None, as_json: Json = False) -> None:
    """End a rollout. The requests are divided as the document says."""
    _show(ask(at(recipe, socket), "POST", f"/rollouts/{quote(route, safe='')}/abort"), as_json)


def _show(told: dict[str, Any], as_json: bool) -> None:
    from llmbench.gateway.traffic.drawing import LABELS, amount, apart, bounds, margin, strip, turnout

    if as_json:
        print_json(told)
        return
    units = ", ".join(f"{name} {count:,}" for name, count in told["units"].items()) or "none"
    print(f"{told['route']}: {told['canary']} against {told['control']}, {told['state']} at {told['share']:g} %")
    print(f"step {told['step']} of {len(told['steps'])}, units: {units}, plan {told['hash']}")
    if told["reason"]:
        print(told["reason"])
    print()
    rows = [
        ["guard-rail", "state", told["canary"], told["control"], "difference", "not ruled out", "margin", "against the margin"]
    ]
    for one in told["evidence"]:
        rail, seen = one["rail"], one["difference"] is not None
        difference = apart(rail, one["difference"]) if seen else "-"
        figures = [
            amount(rail, one["canary"]),
            amount(rail, one["control"]),
            difference,
            bounds(one),
            margin(one),
        ]
        rows.append([LABELS[rail], one["state"], *figures, strip(one, _WIDTH)])
    if told["evidence"]:
        terminal.listing(rows, shrink=(0,), right=(2, 3, 4, 5, 6))
        print()
    for one in told["turnout"]:
        print(turnout(one, told["canary"], told["control"]))
    if told["waits_for"]:
        print(f"Waits for: {', '.join(LABELS[name] for name in told['waits_for'])}")
    rows = [["when (UTC)", "decision", "share", "why"]]
    rows += [[line["at"], line["action"], f"{line['share']:g} %", line["reason"]] for line in told["audit"]]
    terminal.listing(rows, shrink=(3,), right=(2,))
    show_shadows(told.get("shadows", ()))
    if told["state"] == "promoted":
        print(f"\nThe document still says otherwise. To keep it: variants: {{{told['canary']}: 100}} under {told['route']}")


def _document(path: Path, route: str) -> dict[str, Any]:
    cards = {card["id"]: card for card in ask(path, "GET", "/routes")["routes"]}
    if route not in cards:
        raise LlmbenchError(f"There is no route {route}. Available: {', '.join(cards) or 'none'}")
    found: dict[str, Any] = cards[route]
    return found


def _percents(given: str) -> list[float]:
    try:
        return [float(part) for part in given.split(",")]
    except ValueError:
        raise LlmbenchError(f"--plan must be percents, such as 5,25,50,100, not {given!r:.60}") from None


def _margins(given: list[str]) -> dict[str, float | None]:
    margins: dict[str, float | None] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            margins[name] = None if value == "off" else float(value)
        except ValueError:
            raise LlmbenchError(f"--guardrail must be NAME=MARGIN or NAME=off, such as errors=0.05, not {text!r:.60}") from None
    return margins
