"""Limits that several gateways share over a real Redis: what they are when it stops, restarts, or loses a connection."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.redis_server import Server
from typer.testing import CliRunner

from llmbench import recipe as recipes
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError, MissingPackage, RecipeError
from llmbench.gateway import redis_book
from llmbench.gateway.keys import Key, KeyStore
from llmbench.gateway.ledger import Grant, Ledger, opened
from llmbench.gateway.quota import Account, Excess, Limits
from llmbench.gateway.redis_book import RedisBook
from llmbench.gateway.refusal import Refusal
from llmbench.recipe import GatewaySpec, ServeRecipe

SECRET = "canary-pass"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    store = KeyStore(tmp_path / "keys.sqlite")
    yield store
    store.close()


def key_of(store: KeyStore, **limits: int) -> Key:
    store.new("alice", limits=Limits(**limits))
    return store.named("alice")


def ledger_of(store: KeyStore, redis: Server, said: list[str] | None = None) -> Ledger:
    return Ledger(store.path, book=RedisBook(redis.url, said.append if said is not None else None))


def account(redis: Server) -> Account:
    book = RedisBook(redis.url)
    found = book.account("alice")
    book.close()
    assert found is not None
    return found


async def written(*ledgers: Ledger) -> None:
    end = time.monotonic() + 30
    while not all(ledger.is_written() for ledger in ledgers):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def granted(ledger: Ledger, key: Key, tokens: int) -> Grant:
    """Asks until Redis answers."""
    end = time.monotonic() + 60
    while True:
        try:
            found = await ledger.reserve(key, tokens)
        except Refusal as refusal:
            assert (refusal.status, refusal.code) == (503, "keys_unavailable") and time.monotonic() < end
            await asyncio.sleep(0.02)
        else:
            assert isinstance(found, Grant)
            return found


async def test_while_redis_is_gone_nothing_is_granted_and_what_was_settled_is_written_when_it_is_back(
    store: KeyStore, redis: Server
) -> None:
    key, said = key_of(store, tokens_per_day=1000, concurrent=3), list[str]()
    with ledger_of(store, redis, said) as ledger:
        grant, kept = await granted(ledger, key, 100), await granted(ledger, key, 10)
        redis.kill()
        for _ in range(3):
            with pytest.raises(Refusal) as caught:
                await ledger.reserve(key, 1)
            assert (caught.value.status, caught.value.code) == (503, "keys_unavailable")
            assert str(redis.folder) not in caught.value.message
        ledger.settle(grant, 30)
        ledger.spend(key, tokens=5)
        ledger.spend(key, tokens=6)
        await asyncio.sleep(0.3)
        assert not ledger.is_written()
        redis.start()
        await written(ledger)
        found = account(redis)
        assert (found.day_tokens, found.day_requests, found.open, found.held) == (30 + 10 + 5 + 6, 4, 1, 10)
        ledger.settle(kept, 0)
        await granted(ledger, key, 1)
    [gone, back] = said
    assert "does not answer" in gone and "get 503" in gone and "answers again" in back


async def test_a_redis_that_hangs_refuses_requests_and_is_used_again_when_it_answers(store: KeyStore, redis: Server) -> None:
    key = key_of(store, tokens_per_day=1000)
    with ledger_of(store, redis) as ledger:
        await granted(ledger, key, 10)
        redis.send(signal.SIGSTOP)
        try:
            refused = await asyncio.gather(*(ledger.reserve(key, 1) for _ in range(20)), return_exceptions=True)
        finally:
            redis.send(signal.SIGCONT)
        assert {error.code for error in refused if isinstance(error, Refusal)} == {"keys_unavailable"}
        await granted(ledger, key, 20)
        await written(ledger)
        found = account(redis)
        assert (found.day_tokens, found.open) == (30, 2)


class Cutting:
    """Forwards to a Redis. In `before` and `after` one write is passed on or not, and its connection is closed in place of an
    answer; then comes `mode_after`. In `down` every connection is closed."""

    def __init__(self, redis: Server) -> None:
        self.redis, self.mode, self.mode_after, self.cut = redis, "whole", "whole", asyncio.Event()
        self.path = redis.folder / "cutting"
        self.url = f"unix://{self.path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(f"{self.redis.folder}/s")
        try:
            while self.mode != "down" and (data := await reader.read(1 << 20)):
                mode = self.mode if b"EVALSHA" in data else "whole"
                if mode != "before":
                    forth.write(data)
                    answer = await back.read(1 << 20)
                if mode != "whole":
                    self.mode = self.mode_after
                    self.cut.set()
                    return
                writer.write(answer)
        except OSError:
            pass
        finally:
            forth.close()
            writer.close()


@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize("next", ["whole", "down"])
async def test_a_connection_that_is_lost_in_a_write_neither_loses_nor_doubles_anything(
    store: KeyStore, redis: Server, mode: str, next: str
) -> None:
    key = key_of(store, tokens_per_day=1000, concurrent=2)
    proxy = Cutting(redis)
    async with await asyncio.start_unix_server(proxy.serve, proxy.path):
        # The ledger waits for the proxy, which answers on this event loop.
        ledger = await asyncio.to_thread(lambda: Ledger(store.path, book=RedisBook(proxy.url)))
        try:
            grant = await granted(ledger, key, 100)
            proxy.mode, proxy.mode_after = mode, next
            ledger.settle(grant, 40)
            ledger.spend(key, tokens=7)
            [asked] = await asyncio.gather(ledger.reserve(key, 50), return_exceptions=True)
            assert proxy.cut.is_set()
            assert isinstance(asked, Grant) or (isinstance(asked, Refusal) and asked.code == "keys_unavailable")
            assert next == "whole" or not ledger.is_written()
            proxy.mode = "whole"
            await written(ledger)
            found, open = account(redis), int(isinstance(asked, Grant))
            assert (found.open, found.held, found.day_tokens) == (open, 50 * open, 47 + 50 * open)
            assert 2 + open <= found.day_requests <= 3
            for _ in range(2 - open):
                await granted(ledger, key, 10)
            assert await ledger.reserve(key, 1) == Excess("concurrent", 1.0), "no place has leaked"
        finally:
            await asyncio.to_thread(ledger.close)


async def test_a_write_that_comes_late_is_as_if_it_had_never_been_sent(store: KeyStore, redis: Server) -> None:
    key_of(store)
    book = RedisBook(redis.url)
    stored = book._read(["alice"])
    late = redis_book._Sent(stored.mark, "late", {"alice": {}})
    change = [("alice", "", "[[1,100,0,0,1,100],{}]")]
    book._doubt = late
    assert not book._resolved()
    assert not book._write(late, stored.now, change) and book.account("alice") is None
    book.close()


async def test_redis_that_restarts_while_two_gateways_spend_keeps_the_limit(store: KeyStore, redis: Server) -> None:
    key, used, chance = key_of(store, tokens_per_day=20_000, concurrent=20), 0, random.Random(1)

    async def client(ledger: Ledger) -> None:
        nonlocal used
        while True:
            most = chance.randint(20, 200)
            try:
                found = await ledger.reserve(key, most)
            except Refusal:
                await asyncio.sleep(0.05)
                continue
            if isinstance(found, Excess):
                if found.wait > 1:
                    return
                await asyncio.sleep(0.02)
                continue
            await asyncio.sleep(chance.uniform(0, 0.03))
            spent = chance.randint(10, most)
            used += spent
            ledger.settle(found, spent)

    with ledger_of(store, redis) as one, ledger_of(store, redis) as other:
        clients = [asyncio.create_task(client(ledger)) for _ in range(12) for ledger in (one, other)]
        for part in (4000, 9000):
            while used < part:
                await asyncio.sleep(0.01)
            redis.kill()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(redis.start)
        await asyncio.gather(*clients)
        await written(one, other)
        found = account(redis)
    assert (found.day_tokens, found.open, found.held) == (used, 0, 0)
    assert 0.95 * 20_000 <= used <= 20_000


async def test_after_an_outage_longer_than_a_life_sign_lasts_no_gateway_takes_another_for_dead(
    store: KeyStore, redis: Server
) -> None:
    key = key_of(store, tokens_per_day=1000, concurrent=5)
    with ledger_of(store, redis) as one, ledger_of(store, redis) as other:
        mine, theirs = await granted(one, key, 100), await granted(other, key, 200)
        redis.kill()
        for ledger in (one, other):
            with pytest.raises(Refusal):
                await ledger.reserve(key, 1)
        redis.start()
        for id in redis.client.hkeys("llmbench:gateways"):
            redis.client.hset("llmbench:gateways", id, time.time() - 60)  # as after a minute
        one.settle(mine, 0)
        await written(one)
        other.settle(theirs, 20)
        await written(other)
        found = account(redis)
        assert (found.day_tokens, found.open) == (20, 0)


async def test_a_redis_that_has_lost_everything_gives_nothing_back_that_it_does_not_know(
    store: KeyStore, redis: Server
) -> None:
    key = key_of(store, tokens_per_day=1000, concurrent=2)
    with ledger_of(store, redis) as ledger:
        lost = await granted(ledger, key, 500)
        redis.client.flushall()
        await granted(ledger, key, 100)
        ledger.settle(lost, 0)
        await written(ledger)
        found = account(redis)
        assert (found.day_tokens, found.open, found.held) == (100, 1, 100)


async def test_the_clock_is_that_of_redis(store: KeyStore, redis: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    key, now = key_of(store, tokens_per_minute=600), time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400)
    with ledger_of(store, redis) as ledger:
        grant = await granted(ledger, key, 600)
        assert abs(account(redis).at - now()) < 60 and grant.day == account(redis).day
        assert abs(ledger.clock() - now()) < 60


async def test_a_gateway_that_closes_leaves_no_open_requests(store: KeyStore, redis: Server) -> None:
    key = key_of(store, concurrent=1, tokens_per_day=100)
    with ledger_of(store, redis) as one, ledger_of(store, redis) as other:
        await granted(one, key, 60)
        assert await other.reserve(key, 1) == Excess("concurrent", 1.0)
        one.close()
        await granted(other, key, 40)
        found = await other.reserve(key, 1)
        assert isinstance(found, Excess) and found.limit == "day"
    assert account(redis).day_tokens == 100


async def test_errors_and_messages_never_have_the_password(
    store: KeyStore, redis: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said: list[str] = []
    for url in (f"redis://me:{SECRET}@127.0.0.1:{port}/0", f"redis://me:{SECRET}@127.0.0.1:{port}/0?socket_timeout=x"):
        spec = GatewaySpec(keys=store.path, limits_in=url)
        with (
            pytest.raises(
                LlmbenchError, match=r"gateway\.limits_in: Redis at 127\.0\.0\.1:\d+ cannot be used .*\. Start"
            ) as caught,
            opened(spec, said.append),
        ):
            pass
        said += [str(caught.value), repr(spec)]
    redis.client.config_set("requirepass", SECRET)
    try:
        with pytest.raises(LlmbenchError, match="AuthenticationError") as caught:
            RedisBook(redis.url)
        said.append(str(caught.value))
        redis.client.execute_command("AUTH", SECRET)
        url = redis.url.replace("unix://", f"unix://:{SECRET}@")
        with opened(GatewaySpec(keys=store.path, limits_in=url), said.append) as ledger:
            assert ledger is not None
            said += [repr(vars(ledger)), repr(vars(ledger._book))]
    finally:
        redis.client.config_set("requirepass", "")
    document = tmp_path / "serve.yaml"
    for url in (f"redis://:{SECRET}@", f"redis://:{SECRET}@host:port", f"http://me:{SECRET}@host", f"redis://:{SECRET}/x@host",
                f"[redis://:{SECRET}@host]"):  # fmt: skip
        document.write_text(f"variants:\n  - name: m\ngateway:\n  keys: true\n  limits_in: {url}\n")
        for overrides in ([], [f"gateway.limits_in={url}"]):
            with pytest.raises(RecipeError, match=r"redis://HOST") as refused:
                recipes.load(document, ServeRecipe, overrides)
            said.append(str(refused.value))
    assert SECRET not in "\n".join(said) and len(said) > 10


def test_without_redis_py_the_error_says_what_to_install(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    spec = GatewaySpec(keys=store.path, limits_in="redis://localhost")
    with pytest.raises(MissingPackage, match=r"pip install 'llmbench\[redis\]'"), opened(spec, None):
        pass


def test_limits_in_redis_are_those_of_keys() -> None:
    given: dict[str, Any] = {"variants": [{"name": "m"}], "gateway": {"limits_in": "rediss://me:p@host:6380/2"}}
    with pytest.raises(ValueError, match=r"set gateway\.keys"):
        ServeRecipe.model_validate(given)
    given["gateway"]["keys"] = True
    assert ServeRecipe.model_validate(given).gateway.limits_in == "rediss://me:p@host:6380/2"


async def test_the_list_of_keys_shows_what_was_spent_over_redis(store: KeyStore, redis: Server) -> None:
    key = key_of(store, tokens_per_day=1000)
    with ledger_of(store, redis) as ledger:
        await granted(ledger, key, 321)
    words = ["keys", "list", "--json", "--file", str(store.path)]
    for more, tokens in (([], 0), (["--limits-in", redis.url], 321)):
        [listed] = json.loads(CliRunner().invoke(cli, [*words, *more]).stdout)
        assert (listed["tokens_today"], listed["requests_today"]) == (tokens, tokens // 321)
    document = store.path.with_name("serve.yaml")
    document.write_text(f"variants: [{{name: m}}]\ngateway: {{keys: {store.path.name}, limits_in: {redis.url}}}\n")
    [listed] = json.loads(CliRunner().invoke(cli, ["keys", "list", "--json", "--from", str(document)]).stdout)
    assert (listed["tokens_today"], listed["requests_today"]) == (321, 1)
    for url in (f"redis://:{SECRET}/x@host:1", f"http://me:{SECRET}@host", f"redis://host:{SECRET}"):
        error = CliRunner().invoke(cli, [*words, "--limits-in", url]).exception
        assert isinstance(error, LlmbenchError) and SECRET not in str(error) and "\n" not in str(error)
