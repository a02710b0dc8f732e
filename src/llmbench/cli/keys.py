"""`llmbench keys`: named keys of the endpoint, with limits and budgets."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli import completion, terminal
from llmbench.cli.arguments import Json
from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from llmbench.gateway.keys import Key, KeyStore
    from llmbench.gateway.redis_book import RedisBook

__all__ = ["register"]

_NONE = "none"
_UNITS = {"h": 3600, "d": 86_400}
_SHOWN = (
    ("requests_per_minute", "{:,} requests/min"),
    ("tokens_per_minute", "{:,} tokens/min"),
    ("concurrent", "{:,} at once"),
    ("tokens_per_day", "{:,} tokens/day"),
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name, such as the person or program that uses it.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="VARIANT",
        help="A variant that the key may ask; repeat it for more. Other variants do not exist for it. none: all of them.",
        show_default=False,
        autocompletion=completion.variants,
    ),
]
Requests = Annotated[str | None, typer.Option(metavar="N", help="Requests a minute.", show_default=False)]
Tokens = Annotated[str | None, typer.Option(metavar="N", help="Tokens a minute, prompt and answer.", show_default=False)]
Concurrent = Annotated[str | None, typer.Option(metavar="N", help="Requests at once.", show_default=False)]
Daily = Annotated[str | None, typer.Option(metavar="N", help="Tokens a day, which begins at 00:00 UTC.", show_default=False)]
Expires = Annotated[
    str | None,
    typer.Option(
        metavar="30d|DATE",
        help="End it after some days (30d) or hours (12h), or after a date (2027-01-31).",
        show_default=False,
    ),
]
File = Annotated[
    Path | None,
    typer.Option(help="The key file, where `gateway.keys` names another than outputs/keys.sqlite.", show_default=False),
]

LimitsIn = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Redis URL that holds what keys spent, if `gateway.limits_in` is set. Other users of this machine can read a "
        "command line: where the URL has a password, use --from.",
        show_default=False,
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="RECIPE",
        help="The serving document, whose `gateway.keys` and `gateway.limits_in` are used.",
        show_default=False,
        autocompletion=completion.recipes,
    ),
]


def register(cli: typer.Typer) -> None:
    """Adds the verb, and the verbs under it."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Make, list, change and revoke named keys of the endpoint, with limits and budgets.\n\n"
        "`llmbench serve` takes them with `gateway.keys: true`, and sees changes within a second.",
        epilog="Example: `llmbench keys new alice --tokens-per-day 100000 --expires 30d`",
    )
    group.command(epilog="Example: `llmbench keys new alice --requests-per-minute 60 --tokens-per-day 100000`")(new)
    group.command("list", epilog="Example: `llmbench keys list --from serve.yaml`")(list_keys)
    group.command(epilog="Example: `llmbench keys change alice --tokens-per-day none`")(change)
    group.command(epilog="Example: `llmbench keys revoke alice`")(revoke)
    cli.add_typer(group, name="keys")


def new(
    name: Name,
    model: Models = None,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    concurrent: Concurrent = None,
    tokens_per_day: Daily = None,
    expires: Expires = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it. It is stored as a hash and can never be shown again."""
    from llmbench.gateway.quota import Limits

    given = _limits(requests_per_minute, tokens_per_minute, concurrent, tokens_per_day)
    until, models = _time(expires), _models(model)
    store = _opened(file)
    secret = store.new(name, limits=Limits(**given), models=models, expires=until)
    if as_json:
        terminal.print_json(_record(store, store.named(name)) | {"key": secret})
        return
    print(secret, flush=True)
    print(
        f"\nThis is the only time that the key of {name} is shown. To use it:\n\n"
        f"  export OPENAI_API_KEY=KEY        # the line above; OpenAI's clients and llmbench read it\n"
        f'  curl -H "Authorization: Bearer $OPENAI_API_KEY" http://127.0.0.1:8000/v1/models\n\n'
        f"The gateway accepts it if its recipe has {_setting(file)}.",
        file=sys.stderr,
    )


def list_keys(file: File = None, limits_in: LimitsIn = None, recipe: From = None, as_json: Json = False) -> None:
    """List the keys with their limits, what they spent today, and when they were last used."""
    if recipe is not None:
        file, limits_in = _of_document(recipe, file, limits_in)
    store = _opened(file, create=False)
    found = []
    if store is not None:
        with ExitStack() as stack:
            book = store if limits_in is None else stack.enter_context(_redis(limits_in))
            found = [_record(book, key) for key in store.every()]
    if as_json:
        terminal.print_json(found)
        return
    if not found:
        print("No keys yet. Make one: llmbench keys new NAME")
        return
    rows = [["key", "state", "limits", "models", "tokens today", "requests", "last used", "expires"]]
    for one in found:
        limits = ", ".join(form.format(one[name]) for name, form in _SHOWN if one[name] is not None) or "-"
        rows.append(
            [one["name"], one["state"], limits, ", ".join(one["models"] or ["all"]), f"{one['tokens_today']:,}",
             f"{one['requests_today']:,}", _minute(one["last_used"]), _minute(one["expires"])]
        )  # fmt: skip
    terminal.listing(rows, shrink=(3, 2, 0), right=(4, 5))


def change(
    name: Name,
    model: Models = None,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    concurrent: Concurrent = None,
    tokens_per_day: Daily = None,
    expires: Expires = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Change what is given of a key's limits, variants and expiry; `none` removes it. The key itself stays.

    Running gateways apply it within a second. What has been spent stays spent.
    """
    given = _limits(requests_per_minute, tokens_per_minute, concurrent, tokens_per_day)
    until, models = _time(expires), _models(model)
    if not given and expires is None and model is None:
        raise LlmbenchError(f"Nothing to change. Name a limit, such as: llmbench keys change {name} --tokens-per-day 100000")
    store = _existing(file, name)
    key = store.named(name)
    changed = replace(
        key,
        limits=replace(key.limits, **given),
        models=key.models if model is None else None if models is None else tuple(models),
        expires=key.expires if expires is None else until,
    )
    store.update(changed)
    if as_json:
        terminal.print_json(_record(store, changed))
    else:
        print(f"Changed key {name}.")


def revoke(name: Name, file: File = None, as_json: Json = False) -> None:
    """Revoke a key: within a second no gateway accepts it. Answers in progress end as usual."""
    store = _existing(file, name)
    store.revoke(name)
    if as_json:
        terminal.print_json({"name": name, "state": "revoked"})
    else:
        print(f"Revoked key {name}. To replace it: llmbench keys new {name}")


def _opened(file: Path | None, *, create: bool = True) -> Any:
    """The key file; None where there is none and none is to be made."""
    from llmbench.gateway.keys import KeyStore, default_path

    path = file or default_path()
    return KeyStore(path) if create or path.exists() else None


def _of_document(recipe: str, file: Path | None, limits_in: str | None) -> tuple[Path | None, str | None]:
    """The key file of a serving document, None for the workspace's, and the Redis that holds what its keys spent."""
    from llmbench.recipe import ServeRecipe, load

    if file is not None or limits_in is not None:
        raise LlmbenchError("--from names the key file and the Redis: leave out --file and --limits-in")
    spec = load(recipe, ServeRecipe).gateway
    if spec.keys is False:
        raise LlmbenchError(f"{recipe}: it has no named keys. Set gateway.keys: true")
    return None if spec.keys is True else spec.keys, spec.limits_in


def _existing(file: Path | None, name: str) -> KeyStore:
    store: KeyStore | None = _opened(file, create=False)
    if store is None:
        raise LlmbenchError(f"Key {name!r:.100} does not exist: there are no keys yet. Make one: llmbench keys new NAME")
    return store


def _redis(url: str) -> AbstractContextManager[RedisBook]:
    from llmbench.gateway.redis_book import RedisBook

    return closing(RedisBook(url, verb="keys list"))


def _record(book: KeyStore | RedisBook, key: Key) -> dict[str, Any]:
    """A key as a program reads it; times are seconds since 1970."""
    from llmbench.gateway.quota import Account

    now, account = time.time(), book.account(key.name) or Account()
    last_used = account.at if account.at >= key.created else None
    account.advance(key.limits, now)
    return {
        "name": key.name,
        "state": key.state(now),
        "models": None if key.models is None else list(key.models),
        **{name: getattr(key.limits, name) for name, _ in _SHOWN},
        "requests_today": account.day_requests,
        "tokens_today": account.day_tokens,
        "created": key.created,
        "expires": key.expires,
        "last_used": last_used,
    }


def _limits(requests: str | None, tokens: str | None, concurrent: str | None, daily: str | None) -> dict[str, int | None]:
    """The limits that are given; None for `none`."""
    given = {"requests_per_minute": requests, "tokens_per_minute": tokens, "concurrent": concurrent, "tokens_per_day": daily}
    found: dict[str, int | None] = {}
    for name, text in given.items():
        if text is None:
            continue
        digits = text.replace("_", "").replace(",", "")
        if text != _NONE and not (digits.isascii() and digits.isdigit() and 0 < int(digits[:20]) < 2**53):
            option = "--" + name.replace("_", "-")
            raise LlmbenchError(f"{option} {text!r:.60} is not a limit. Give a whole number above 0, or none.")
        found[name] = None if text == _NONE else int(digits)
    return found


def _models(names: Sequence[str] | None) -> list[str] | None:
    from llmbench import workspace

    if names is None or list(names) == [_NONE]:
        return None
    return [workspace.check_name(name, "--model") for name in dict.fromkeys(names)]


def _time(text: str | None) -> float | None:
    """`30d` from now, or the end of a day of UTC, in seconds since 1970."""
    if text is None or text == _NONE:
        return None
    if span := re.fullmatch(r"(\d{1,5})([hd])", text):
        end = time.time() + int(span[1]) * _UNITS[span[2]]
    else:
        try:
            day = date.fromisoformat(text)
            end = (datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)).timestamp()
        except (ValueError, OverflowError):
            raise LlmbenchError(f"--expires {text!r:.60} is not a time. Give days (30d), hours (12h) or a date.") from None
    if end <= time.time():
        raise LlmbenchError(f"--expires {text} has passed. Give a time in the future.")
    return end


def _setting(file: Path | None) -> str:
    return f"gateway.keys: {'true' if file is None else file}"


def _minute(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
