"""A TCP proxy that holds every byte back for a while: a long way between two processes of one machine.

Run as a process of its own. Its first line out: the ports, one for each target. A line in: seconds one way, from then
on. Threads that sleep, since an event loop's clock is too coarse for half a millisecond.
"""

from __future__ import annotations

import json
import queue
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from swarm.terms import Address

CHUNK_BYTES = 1 << 18


N_ECHOES = 30


class Delay:
    """A context manager: the proxy's process. addresses: where the targets are reached through it."""

    def __init__(self, targets: Sequence[Address]) -> None:
        self._echo = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=_echo, args=(self._echo,), daemon=True).start()
        targets = [*targets, Address("127.0.0.1", self._echo.getsockname()[1])]
        command = [sys.executable, "-m", "benchmarks.delay", *map(str, targets)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self.addresses = [Address("127.0.0.1", port) for port in ports[:-1]]
        self._way_to_echo = socket.create_connection(("127.0.0.1", ports[-1]))

    def set_rtt(self, rtt_s: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{rtt_s / 2}\n")
        self._process.stdin.flush()

    def measure_rtt(self) -> float:
        """Seconds that a small message takes there and back: what was set, and what the proxy itself adds."""
        taken_s = []
        for _ in range(N_ECHOES):
            started_s = time.perf_counter()
            self._way_to_echo.sendall(b"?")
            self._way_to_echo.recv(1)
            taken_s.append(time.perf_counter() - started_s)
        return statistics.median(taken_s)

    def __enter__(self) -> Delay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._way_to_echo.close()
        self._echo.close()
        self._process.terminate()
        self._process.wait()


def _echo(listening: socket.socket) -> None:
    caller, _ = listening.accept()
    with caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := caller.recv(1):
            caller.sendall(data)


class _Way:
    """delay_s: of what comes in from now on."""

    delay_s = 0.0

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def send() -> None:
            while True:
                due_s, data = waiting.get()
                time.sleep(max(0.0, due_s - time.perf_counter()))
                try:
                    sink.sendall(data)
                except OSError:
                    return
                if not data:
                    sink.close()
                    return

        threading.Thread(target=send, daemon=True).start()
        data = b"-"
        while data:
            try:
                data = source.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            waiting.put((time.perf_counter() + self.delay_s, data))


def _serve(way: _Way, listening: socket.socket, target: Address) -> None:
    while True:
        caller, _ = listening.accept()
        called = socket.create_connection((target.host, target.port))
        for end in (caller, called):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=way.carry, args=(caller, called), daemon=True).start()
        threading.Thread(target=way.carry, args=(called, caller), daemon=True).start()


def main(targets: Sequence[Address]) -> None:
    way = _Way()
    ports = []
    for target in targets:
        listening = socket.create_server(("127.0.0.1", 0))
        ports.append(listening.getsockname()[1])
        threading.Thread(target=_serve, args=(way, listening, target), daemon=True).start()
    print(json.dumps(ports), flush=True)
    for line in sys.stdin:
        way.delay_s = float(line)


if __name__ == "__main__":
    main([Address.parse(text) for text in sys.argv[1:]])
