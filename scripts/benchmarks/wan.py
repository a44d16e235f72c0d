"""A wide area on one machine: doors of ours through which every byte comes later."""

from __future__ import annotations

import asyncio
import contextlib
import time

from swarm.terms import Address


class DelayingDoor:
    """Listens on loopback and passes each connection on to `target`, every byte delay_s later, in both directions.

    A node that advertises the door's address is that far away from everybody who dials it. delay_s may change while
    connections are open. Use it as an async context manager; set target as soon as it is known.
    """

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self._target: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> DelayingDoor:
        self._server = await asyncio.start_server(self._enter, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._passing):
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    @property
    def address(self) -> Address:
        assert self._server is not None
        return Address("127.0.0.1", self._server.sockets[0].getsockname()[1])

    def lead_to(self, target: Address) -> None:
        self._target.set_result(target)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            target = await asyncio.shield(self._target)
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection(target.host, target.port)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass_on(reader, back))
                    both.create_task(self._pass_on(there, writer))
        except (asyncio.CancelledError, ExceptionGroup):
            pass  # the door closes, or an end is gone: so is the connection
        finally:
            writer.close()
            self._passing.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the end of what comes; bytes keep their order when the delay shrinks."""
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivering = asyncio.create_task(_deliver(on_the_way, writer))
        due_s = 0.0
        try:
            while True:
                data = await reader.read(1 << 16)
                due_s = max(due_s, time.monotonic() + self.delay_s)
                on_the_way.put_nowait((due_s, data))
                if not data:
                    break
            await delivering
        finally:
            delivering.cancel()


async def _deliver(on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            due_s, data = await on_the_way.get()
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if not data:
                return
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
