"""Named keys: how they are stored, verified, shown to nobody, and which variants exist for them."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from llmbench import recipe as recipes
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.gateway import Access, Catalogue, Served, build, keys
from llmbench.gateway.background import Background
from llmbench.gateway.keys import Keyring, KeyStore
from llmbench.gateway.ledger import Ledger, opened
from llmbench.gateway.quota import Limits
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.relay import Upstream
from llmbench.recipe import GatewaySpec, ServeRecipe, Variant

ASK = {"model": "base", "messages": [{"role": "user", "content": "Hi"}]}


class Answering(httpx.AsyncBaseTransport):
    """An engine that answers everything with the same document."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        return httpx.Response(200, json={"model": "e", "choices": [], "usage": usage, "count": 5})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    store = KeyStore(tmp_path / "outputs" / "keys.sqlite")
    yield store
    store.close()


@pytest.fixture
def ledger(store: KeyStore) -> Iterator[Ledger]:
    with Ledger(store.path) as ledger:
        yield ledger


def app_of(ledger: Ledger, *, api_key: str | None = None) -> Starlette:
    models = [Served(Variant(name=name), "e", {}) for name in ("base", "mine", "rag")]
    catalogue = Catalogue(models, context=1024)
    return build(catalogue, Upstream(Answering(), lambda: None), access=Access(api_key), ledger=ledger)


def client(app: Starlette, key: str | None = None) -> httpx.AsyncClient:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, False), base_url="http://127.0.0.1", headers=headers)


def sent(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {key}".encode())]


class Hashes:
    """Counts what is computed to verify keys."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, compute = 0, keys._hash

        def counted(secret: bytes, salt: bytes) -> bytes:
            self.count += 1
            return compute(secret, salt)

        monkeypatch.setattr(keys, "_hash", counted)


def ring(store: KeyStore, now: float | None = None) -> Keyring:
    found = {key.id: key for key in store.every()}
    return Keyring(lambda: found, time.time if now is None else lambda: now)


async def refusal(keyring: Keyring, key: str) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        await keyring.find(sent(key))
    return caught.value.status, caught.value.message


def test_a_key_has_256_random_bits_and_only_its_hash_is_stored_for_its_owner_alone(store: KeyStore) -> None:
    made = [store.new(name) for name in ("alice", "bob")]
    for key in made:
        assert re.fullmatch(r"llmb-[0-9a-f]{12}-[A-Za-z0-9_-]{43}", key)
    files = [path for path in store.path.parent.iterdir() if path.name.startswith("keys.sqlite")]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600} and len(files) > 1
    stored = b"".join(path.read_bytes() for path in files)
    assert b"alice" in stored and not any(key.split("-", 2)[2].encode() in stored for key in made)
    alice, bob = store.every()
    assert alice.salt != bob.salt and alice.hash != bob.hash


def test_a_name_is_taken_until_its_key_is_revoked(store: KeyStore) -> None:
    first = store.new("alice")
    with pytest.raises(LlmbenchError, match=r"already exists.*llmbench keys revoke alice"):
        store.new("alice")
    store.revoke("alice")
    assert store.new("alice") != first
    assert [key.state(time.time()) for key in store.every()] == ["active"]


@pytest.mark.parametrize("name", ["Alice", "a b", "../x", "", "x" * 65, "a'; DROP TABLE keys; --"])
def test_a_name_that_is_not_fit_for_one_is_refused(store: KeyStore, name: str) -> None:
    with pytest.raises(LlmbenchError, match="key name"):
        store.new(name)
    assert store.every() == []


def test_a_key_that_is_not_there_cannot_be_changed_or_revoked(store: KeyStore) -> None:
    store.new("alice")
    gone = store.named("alice")
    store.revoke("alice")
    for work in (lambda: store.revoke("alice"), lambda: store.update(gone), lambda: store.named("alice")):
        with pytest.raises(LlmbenchError, match="has been revoked"):
            work()
    with pytest.raises(LlmbenchError, match="'bob' does not exist"):
        store.revoke("bob")
    store.new("alice")
    with pytest.raises(LlmbenchError, match="replaced meanwhile"):
        store.update(gone)


@pytest.mark.parametrize(
    "content", [b"no database, but longer than the sixteen bytes of a header", b"SQLite format 3\0" + b"x" * 200]
)
def test_a_file_that_is_something_else_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(LlmbenchError, match=r"notes: it cannot be used as a key file .*Move it away"):
        KeyStore(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_left_as_it_is(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    with pytest.raises(LlmbenchError, match="another program's"):
        KeyStore(tmp_path / "other")


async def test_a_key_is_hashed_at_its_first_use_only(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    key, hashes = store.new("alice"), Hashes(monkeypatch)
    keyring = ring(store)
    assert {(await keyring.find(sent(key))).name for _ in range(5)} == {"alice"}
    assert hashes.count == 1
    again = ring(store)
    found = await asyncio.gather(*(again.find(sent(key)) for _ in range(200)))
    assert {one.name for one in found} == {"alice"} and hashes.count == 2


async def test_unknown_wrong_and_revoked_keys_cost_and_say_the_same(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    right, revoked = store.new("alice"), store.new("bob")
    store.revoke("bob")
    expired = store.new("carol", expires=time.time() + 100)
    hashes, answers = Hashes(monkeypatch), list[tuple[tuple[int, str], int, int]]()
    wrong = [right[:-1] + ("A" if right[-1] != "A" else "B"), f"llmb-{'0' * 12}-{right[-43:]}", revoked,
             expired[:-1] + ("A" if expired[-1] != "A" else "B")]  # fmt: skip
    keyring = ring(store, time.time() + 200)
    for key in wrong:
        before = hashes.count
        answer = await refusal(keyring, key)
        first, before = hashes.count - before, hashes.count
        assert await refusal(keyring, key) == answer
        answers.append((answer, first, hashes.count - before))
    assert set(answers) == {((401, keys.wrong_key().message), 1, 0)}
    assert (await keyring.find(sent(right))).name == "alice"
    for _ in range(2):
        status, message = await refusal(keyring, expired)
        assert status == 401 and re.search(r"expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC", message)


@pytest.mark.parametrize(
    "key",
    ["", "secret", "llmb-", "llmb-0123456789ab-short", "llmb-0123456789AB-" + "a" * 43, "' OR 1=1 --", "llmb-%s-" + "a" * 43],
)
async def test_what_has_not_the_form_of_a_key_is_refused_without_work(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    store.new("alice")
    hashes = Hashes(monkeypatch)
    assert await refusal(ring(store), key) == (401, keys.wrong_key().message)
    assert hashes.count == 0


async def test_two_keys_in_one_request_are_none(store: KeyStore) -> None:
    key = store.new("alice")
    with pytest.raises(Refusal, match="missing or wrong"):
        await ring(store).find(sent(key) * 2)


async def test_a_flood_of_wrong_keys_is_bounded_and_known_keys_are_answered_meanwhile(store: KeyStore) -> None:
    key, keyring = store.new("alice"), ring(store)
    await keyring.find(sent(key))
    flood = [asyncio.create_task(keyring.find(sent(f"llmb-{i:012x}-{'a' * 43}"))) for i in range(100)]
    await asyncio.sleep(0)
    assert (await keyring.find(sent(key))).name == "alice"
    answers = [error.status for error in await asyncio.gather(*flood, return_exceptions=True) if isinstance(error, Refusal)]
    assert sorted(set(answers)) == [401, 429] and answers.count(401) == 64


async def test_a_client_that_leaves_while_its_key_is_verified_takes_no_other_with_it(store: KeyStore) -> None:
    key, keyring = store.new("alice"), ring(store)
    first, second = (asyncio.create_task(keyring.find(sent(key))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).name == "alice"


async def test_a_running_gateway_sees_new_changed_and_revoked_keys(store: KeyStore, ledger: Ledger) -> None:
    app = app_of(ledger)
    key = f"llmb-{'0' * 12}-{'a' * 43}"

    async def soon(wanted: int, path: str = "/v1/models/base") -> None:
        end = time.monotonic() + 30
        async with client(app, key) as http:
            while (found := (await http.get(path)).status_code) != wanted:
                assert time.monotonic() < end, found
                await asyncio.sleep(0.05)

    await soon(401)
    key = store.new("alice")
    await soon(200)
    store.update(replace(store.named("alice"), models=("mine",)))
    await soon(404)
    store.update(replace(store.named("alice"), models=None, expires=time.time() - 1))
    await soon(401)
    store.update(replace(store.named("alice"), expires=None))
    await soon(200)
    store.revoke("alice")
    await soon(401)


async def test_variants_that_a_key_may_not_ask_do_not_exist_for_it(store: KeyStore) -> None:
    key, other = store.new("alice", models=["mine", "rag"]), store.new("bob")
    with Ledger(store.path) as ledger:
        app = app_of(ledger)
        async with client(app, key) as http:
            assert [one["id"] for one in (await http.get("/v1/models")).json()["data"]] == ["mine", "rag"]
            assert (await http.get("/health")).json()["models"] == ["mine", "rag"]
            for path, body in (
                ("/v1/chat/completions", ASK),
                ("/v1/completions", {"model": "base", "prompt": "Hi"}),
                ("/tokenize", {"model": "base", "prompt": "Hi"}),
            ):
                refused = await http.post(path, json=body)
                unknown = await http.post(path, json=body | {"model": "nope"})
                assert refused.status_code == unknown.status_code == 404
                assert refused.text.replace("'base'", "'nope'") == unknown.text
                assert (await http.post(path, json=body | {"model": "mine"})).status_code == 200
            assert (await http.get("/v1/models/base")).status_code == 404
        async with client(app, other) as http:
            assert len((await http.get("/v1/models")).json()["data"]) == 3


async def test_the_one_key_is_its_owners_beside_named_ones_and_has_no_limits(store: KeyStore) -> None:
    key = store.new("alice", limits=Limits(requests_per_minute=1), models=["mine"])
    with Ledger(store.path) as ledger:
        app = app_of(ledger, api_key="secret")
        async with client(app, "secret") as http:
            assert {(await http.post("/v1/chat/completions", json=ASK)).status_code for _ in range(3)} == {200}
            assert not [name for name in (await http.get("/v1/models")).headers if name.startswith("x-ratelimit")]
        async with client(app, key) as http:
            assert len((await http.get("/v1/models")).json()["data"]) == 1
        for wrong in (None, "secret2", key[:-2] + "AA"):
            async with client(app, wrong) as http:
                assert (await http.get("/v1/models")).status_code == 401
                assert (await http.get("/health")).json() == {"status": "ok"}


async def test_no_key_appears_in_logs_metrics_errors_or_representations(
    store: KeyStore, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    made = [
        store.new("alice", limits=Limits(requests_per_minute=3)),
        store.new("bob"),
        store.new("carol", expires=time.time() - 1),
    ]
    store.revoke("bob")
    owner = "owner-canary"
    said: list[str] = []
    spec = GatewaySpec(keys=store.path, api_key=owner)
    with opened(spec, said.append) as ledger:
        assert ledger is not None
        app = app_of(ledger, api_key=owner)
        for key in [*made, made[0][:-1] + "!", owner]:
            async with client(app, key) as http:
                for path, body in (
                    ("/v1/chat/completions", ASK),
                    ("/v1/chat/completions", {}),
                    ("/nowhere", {}),
                    ("/tokenize", {}),
                ):
                    answer = await http.post(path, json=body)
                    said += [answer.text, str(answer.headers)]
        async with client(app, owner) as http:
            metrics = (await http.get("/metrics")).text
        assert 'key="alice"' in metrics
        said += [metrics, repr(store.every()), repr(ledger.keys), repr(vars(ledger)), repr(ledger), str(store.named("alice"))]
    out = capfd.readouterr()
    text = "\n".join([*said, caplog.text, out.out, out.err])
    for secret in (*(key.split("-", 2)[2][:-1] for key in made), owner):
        assert secret not in text
    for stored in store.every():
        assert stored.hash.hex() not in text and repr(stored.hash) not in text


async def test_metrics_name_the_key(store: KeyStore) -> None:
    key = store.new("alice")
    with Ledger(store.path) as ledger:
        async with client(app_of(ledger, api_key="o"), key) as http:
            await http.post("/v1/chat/completions", json=ASK)
            owner = {"Authorization": "Bearer o"}
            await http.post("/v1/chat/completions", json=ASK, headers=owner)
            lines = (await http.get("/metrics", headers=owner)).text.splitlines()
            refused = await http.get("/metrics")
    assert refused.status_code == 403 and "alice" not in refused.text  # it would learn of every other key
    for line in (
        'llmbench_requests_total{key="alice",model="base",status="200"} 1.0',
        'llmbench_requests_total{key="",model="base",status="200"} 1.0',
        'llmbench_tokens_total{key="alice",model="base",type="input"} 5.0',
        'llmbench_tokens_total{key="alice",model="base",type="output"} 2.0',
    ):
        assert line in lines


def test_other_machines_may_ask_with_either_kind_of_key(tmp_path: Path) -> None:
    for gateway in ({"api_key": "k"}, {"keys": True}, {"keys": "k.sqlite"}):
        ServeRecipe.model_validate({"variants": [{"name": "m"}], "gateway": {"host": "0.0.0.0", **gateway}})
    with pytest.raises(ValueError, match=r"gateway\.api_key, or gateway\.keys"):
        ServeRecipe.model_validate({"variants": [{"name": "m"}], "gateway": {"host": "0.0.0.0"}})


def test_the_file_of_keys_lies_where_the_document_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    document = tmp_path / "mine" / "serve.yaml"

    def spec(value: str, *overrides: str) -> Any:
        document.write_text(f"variants:\n  - name: m\ngateway:\n  keys: {value}\n")
        return recipes.load(document, ServeRecipe, overrides).gateway.keys

    assert spec("true") is True and spec("false") is False
    assert spec("k.sqlite") == tmp_path / "mine" / "k.sqlite"
    assert spec("true", "gateway.keys=k.sqlite") == tmp_path / "k.sqlite"
    with pytest.raises(RecipeError, match=r"gateway\.keys"):
        spec("[a]")


def test_the_keys_of_the_workspace_are_opened_and_named_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path))
    said: list[str] = []
    for _ in range(2):
        with opened(GatewaySpec(keys=True), said.append) as ledger:
            assert ledger is not None
        store = KeyStore(keys.default_path())
        if not store.every():
            store.new("alice")
            store.new("bob", expires=time.time() - 1)
        store.close()
    path = tmp_path / "keys.sqlite"
    assert said == [f"Keys of {path}: none yet. Make one: llmbench keys new NAME", f"Keys of {path}: alice"]
    with opened(GatewaySpec(), None) as nothing:
        assert nothing is None


def test_the_app_asks_its_own_engine_with_a_key_of_its_own() -> None:
    def api_key(**gateway: Any) -> str | None:
        document = ServeRecipe.model_validate({"variants": [{"name": "m"}], "gateway": {"port": 0, **gateway}})
        return Background(document, say=print).api_key

    assert api_key() is None and api_key(api_key="k", keys=True) == "k"
    made = [api_key(keys=True) for _ in range(2)]
    assert None not in made and made[0] != made[1] and len(str(made[0])) == 43


def test_a_key_is_read_as_it_was_made(store: KeyStore) -> None:
    key = store.new("alice", limits=Limits(tokens_per_day=5), models=["mine"], expires=2e9)
    [found] = store.every()
    assert (found.name, found.limits, found.models, found.expires) == ("alice", Limits(tokens_per_day=5), ("mine",), 2e9)
    assert key.split("-")[1] == found.id
