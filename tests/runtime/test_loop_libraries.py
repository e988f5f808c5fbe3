"""A library that is bound to an event loop works in a step, on the real loop, and is refused in a body."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from semel import Context, Retry, durable_function
from semel.errors import ExecutionError, StepError
from tests.runtime.places import Place, run

both_ways = pytest.mark.parametrize("residents_max", [0, 1000])


class Server(ThreadingHTTPServer):
    """Counts what it is asked for, on a port of its own."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1  # type: ignore[attr-defined]
        body = f"got {self.path}".encode()
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: a test is silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@both_ways
def test_a_client_shared_by_steps_works_from_several_at_once_and_after_a_replay(
    place: Place, server: Server, residents_max: int
) -> None:
    clients: list[httpx.AsyncClient] = []

    async def fetch(path: str) -> str:
        answer = await clients[0].get(server.url + path)
        return answer.raise_for_status().text

    @durable_function
    async def fetches(ctx: Context) -> list[str]:
        found = [await ctx.step(fetch, "/first")]
        await ctx.wait(ms=1)
        found += await asyncio.gather(*(ctx.step(fetch, f"/{number}") for number in range(5)))
        await ctx.wait(ms=1)
        return [*found, await ctx.step(fetch, "/last")]

    async def scenario() -> list[str]:
        async with httpx.AsyncClient() as client, place.engine(residents_max=residents_max) as engine:
            clients.append(client)
            return await engine.run(fetches, key="k")

    paths = ["/first", "/0", "/1", "/2", "/3", "/4", "/last"]
    assert run(scenario()) == [f"got {path}" for path in paths]
    assert server.asked == dict.fromkeys(paths, 1)


def test_an_answer_is_fetched_once_over_a_crash(place: Place, server: Server) -> None:
    async def fetch(path: str) -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(server.url + path)).text

    @durable_function
    async def survives(ctx: Context) -> list[str]:
        before = await asyncio.gather(ctx.step(fetch, "/a"), ctx.step(fetch, "/b"))
        await ctx.wait(ms=150)
        return [*before, await ctx.step(fetch, "/c")]

    async def crash() -> Place:
        async with place.engine() as engine:
            await engine.start(survives, key="k")
            async with asyncio.timeout(5):
                while len(server.asked) < 2 or engine.running_count:
                    await asyncio.sleep(0.005)
            return place.crashed()

    async def go_on(left: Place) -> list[str]:
        async with left.engine() as engine:
            return await engine.run(survives, key="k")

    assert run(go_on(run(crash()))) == ["got /a", "got /b", "got /c"]
    assert server.asked["/a"] == server.asked["/b"] == 1


def test_its_errors_are_the_step_s(place: Place, server: Server) -> None:
    async def fetch() -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(server.url + "/missing")).raise_for_status().text

    @durable_function
    async def misses(ctx: Context) -> str:
        try:
            return await ctx.step(fetch, retry=Retry(attempts=1))
        except StepError as error:
            return error.error_type

    async def scenario() -> str:
        async with place.engine() as engine:
            return await engine.run(misses)

    assert run(scenario()) == "HTTPStatusError"


def test_in_a_body_it_is_refused_with_what_to_write_instead(place: Place, server: Server) -> None:
    @durable_function
    async def fetches(ctx: Context) -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(server.url + "/body")).text

    async def scenario() -> str:
        async with place.engine() as engine:
            with pytest.raises(ExecutionError) as caught:
                await engine.run(fetches)
        return str(caught.value)

    assert "put the call in a step: await ctx.step(...)" in run(scenario())
    assert server.asked == {}
