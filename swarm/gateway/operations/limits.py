"""How much a caller may ask for: requests and tokens a minute, and streams at a time, with a short queue before a no.

Does NOT know what a request is: only who makes it and how many tokens it may cost. One loop's work: no locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from swarm.errors import BadArgument, TooManyRequests
from swarm.gateway.operations.keys import Caller

MINUTE_S = 60.0
MAX_IDLE_BUCKETS = 10_000
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """requests_per_min, tokens_per_min: per key; None means no limit. A burst of one minute's worth is let through.
    max_concurrent_per_key: requests at work for one key; None means max_concurrent.
    max_concurrent: in all. More means more sessions on every stage, and a longer time to each token.
    max_queued: requests that wait for a place, in all; one key may hold half of them when others are about. More means
    longer waits before a 429. max_wait_s: the longest wait in the queue.

    Raises: BadArgument.
    """

    requests_per_min: float | None = None
    tokens_per_min: float | None = None
    max_concurrent_per_key: int | None = None
    max_concurrent: int = 64
    max_queued: int = 128
    max_wait_s: float = 60.0

    def __post_init__(self) -> None:
        at_least = {
            "requests_per_min": (self.requests_per_min, 1),
            "tokens_per_min": (self.tokens_per_min, 1),
            "max_concurrent_per_key": (self.max_concurrent_per_key, 1),
            "max_concurrent": (self.max_concurrent, 1),
            "max_queued": (self.max_queued, 0),
            "max_wait_s": (self.max_wait_s, 0),
        }
        for name, (value, least) in at_least.items():
            if value is not None and not value >= least:
                raise BadArgument(f"{name} is {value}, and must be at least {least}")


@dataclass(slots=True)
class Admission:
    """A place at work. n_tokens: what was set aside for it; say what it really took with settle()."""

    n_tokens: float
    waited_s: float
    _bucket: Bucket | None

    def settle(self, n_tokens: int) -> None:
        """Charge the key `n_tokens` in place of what was set aside. May be called again; the last call counts."""
        if self._bucket is not None:
            self._bucket.take(n_tokens - self.n_tokens)
        self.n_tokens = n_tokens


class Limits:
    """Lets requests in while every limit allows it, in a fair order, and says when to come again otherwise."""

    def __init__(self, config: LimitsConfig | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config or LimitsConfig()
        self._clock = clock
        self._requests = Buckets(self._config.requests_per_min, clock)
        self._tokens = Buckets(self._config.tokens_per_min, clock)
        self._running: Counter[str] = Counter()
        self._waiters: list[Waiter] = []
        self._mean_held_s = 1.0

    @property
    def n_running(self) -> int:
        return self._running.total()

    @property
    def n_waiting(self) -> int:
        return len(self._waiters)

    @contextlib.asynccontextmanager
    async def admit(self, caller: Caller, n_tokens: int) -> AsyncIterator[Admission]:
        """Hold a place for the length of the block, after waiting for one in the queue if need be.

        n_tokens: the most that the request may cost (prompt and max_tokens), set aside until settle() tells better. One
        that asks for more than a minute's worth waits until the key has its whole minute and is let in then.
        Raises: TooManyRequests with retry_after_s. A request that was not let in costs nothing.
        """
        name = caller.key_name
        requests, tokens = self._requests.of(name), self._tokens.of(name)
        self._check_rates(requests, tokens, n_tokens)
        charges = [(bucket, amount) for bucket, amount in ((requests, 1), (tokens, n_tokens)) if bucket is not None]
        for bucket, amount in charges:
            bucket.take(amount)
        began_s = self._clock()
        try:
            await self._enter(name)
        except BaseException:
            for bucket, amount in charges:
                bucket.take(-amount)
            raise
        entered_s = self._clock()
        try:
            yield Admission(n_tokens, entered_s - began_s, tokens)
        finally:
            self._mean_held_s += 0.1 * (self._clock() - entered_s - self._mean_held_s)
            self._leave(name)

    def _check_rates(self, requests: Bucket | None, tokens: Bucket | None, n_tokens: int) -> None:
        for bucket, amount, what in ((requests, 1, "requests"), (tokens, n_tokens, "tokens")):
            wait_s = 0.0 if bucket is None else bucket.wait_s(amount)
            if bucket is not None and wait_s > 0:
                raise TooManyRequests(
                    f"this key's {bucket.per_min:g} {what} a minute are used up; try again in {wait_s:.1f} s", wait_s
                )

    async def _enter(self, name: str) -> None:
        if self._has_place(name):  # whoever waits still is held back by a limit of its own
            self._running[name] += 1
            return
        self._check_queue(name)
        waiter = Waiter(name, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._config.max_wait_s):
                await waiter.place
        except BaseException as error:
            if waiter.place.done() and not waiter.place.cancelled():
                self._leave(name)  # the place came in the very moment of giving up
            else:
                self._waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                raise TooManyRequests(
                    f"no place came free within {self._config.max_wait_s:g} s; try again", self._retry_after_s()
                ) from None
            raise

    def _check_queue(self, name: str) -> None:
        n_own = sum(waiter.name == name for waiter in self._waiters)
        are_others = len(self._running.keys() | {waiter.name for waiter in self._waiters} | {name}) > 1
        is_full = len(self._waiters) >= self._config.max_queued
        if is_full or (are_others and n_own >= max(1, self._config.max_queued // 2)):
            whose = "the queue is full" if is_full else "this key's share of the queue is full"
            raise TooManyRequests(f"{whose}; try again later, or ask for less at a time", self._retry_after_s())

    def _retry_after_s(self) -> float:
        """When a place should be free for one more: what waits now, at the pace at which places came free of late."""
        n_ahead = len(self._waiters) + 1
        return max(1.0, min(MINUTE_S, self._mean_held_s * n_ahead / self._config.max_concurrent))

    def _has_place(self, name: str) -> bool:
        per_key = self._config.max_concurrent_per_key or self._config.max_concurrent
        return self.n_running < self._config.max_concurrent and self._running[name] < per_key

    def _leave(self, name: str) -> None:
        self._running[name] -= 1
        if not self._running[name]:
            del self._running[name]
        self._let_in()

    def _let_in(self) -> None:
        """Give free places away: to the key with the fewest at work, and to the one that waits longest among equals."""
        while ready := [waiter for waiter in self._waiters if not waiter.place.done() and self._has_place(waiter.name)]:
            chosen = min(ready, key=lambda waiter: self._running[waiter.name])
            self._waiters.remove(chosen)
            self._running[chosen.name] += 1
            chosen.place.set_result(None)


@dataclass(eq=False, slots=True)
class Waiter:
    name: str
    place: asyncio.Future[None]


class Buckets:
    """A token bucket per key, made when first asked for; full ones are forgotten when there are many."""

    def __init__(self, per_min: float | None, clock: Callable[[], float]) -> None:
        self._per_min = per_min
        self._clock = clock
        self._by_name: dict[str, Bucket] = {}

    def of(self, name: str) -> Bucket | None:
        """None where there is no limit."""
        if self._per_min is None:
            return None
        if name not in self._by_name:
            if len(self._by_name) >= MAX_IDLE_BUCKETS:
                self._by_name = {name: bucket for name, bucket in self._by_name.items() if not bucket.is_full}
            self._by_name[name] = Bucket(self._per_min, self._clock)
        return self._by_name[name]


class Bucket:
    """Fills at a steady rate up to one minute's worth. May be overdrawn: what was used beyond it is waited for."""

    def __init__(self, per_min: float, clock: Callable[[], float]) -> None:
        self.per_min = per_min
        self._clock = clock
        self._level = per_min
        self._filled_s = clock()

    @property
    def is_full(self) -> bool:
        self._fill()
        return self._level >= self.per_min

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount`, or a full bucket if that is less, can be taken. 0.0: now."""
        self._fill()
        missing = min(amount, self.per_min) - self._level
        return missing * MINUTE_S / self.per_min if missing > ROUNDING else 0.0

    def take(self, amount: float) -> None:
        """Negative gives back."""
        self._fill()
        self._level = min(self.per_min, self._level - amount)

    def _fill(self) -> None:
        now_s = self._clock()
        self._level = min(self.per_min, self._level + (now_s - self._filled_s) * self.per_min / MINUTE_S)
        self._filled_s = now_s
