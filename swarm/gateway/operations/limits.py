"""How much a caller may ask for: requests and tokens a minute, and answers at a time, with a short queue before a no.

A request arrives (before its body is read), and is admitted (once it is known what it asks for). Does NOT know what a
request is: only who makes it, how many tokens it may cost and how many answers it wants. One loop's work: no locks.
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
    max_concurrent_per_key: answers at work for one key, n of them for a request with n; None means max_concurrent.
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
    """Places at work. n_tokens: what was set aside for it; say what it really took with settle()."""

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
        """Answers, of all keys."""
        return self._running.total()

    @property
    def n_waiting(self) -> int:
        return len(self._waiters)

    def arrive(self, caller: Caller) -> None:
        """Count a request of this caller's, whatever will become of it: reading what it asks for is work already.

        Raises: TooManyRequests, and counts nothing, when nothing that it may ask for could be let in or wait.
        """
        name = caller.key_name
        requests = self._requests.of(name)
        self._check_rate(requests, 1, "requests")
        self._check_rate(self._tokens.of(name), 1, "tokens")
        if not self._has_places(name, 1):
            self._check_queue(name, 1)
        if requests is not None:
            requests.take(1)

    @contextlib.asynccontextmanager
    async def admit(self, caller: Caller, n_tokens: int, n_places: int = 1) -> AsyncIterator[Admission]:
        """Hold places for the length of the block, after waiting for them in the queue if need be.

        n_tokens: the most that the request may cost (prompt and max_tokens), set aside until settle() tells better. One
        that asks for more than a minute's worth waits until the key has its whole minute and is let in then.
        n_places: the answers that it wants; more than the key may ever have is as many as it may have.
        Raises: TooManyRequests with retry_after_s. A request that was not let in costs no tokens, and where it waited
        in vain does not count.
        """
        name = caller.key_name
        tokens = self._tokens.of(name)
        self._check_rate(tokens, n_tokens, "tokens")
        if tokens is not None:
            tokens.take(n_tokens)
        n_places = min(n_places, self._most_places)
        began_s = self._clock()
        try:
            await self._enter(name, n_places)
        except BaseException as error:
            if tokens is not None:
                tokens.take(-n_tokens)
            requests = self._requests.of(name)
            if requests is not None and isinstance(error, TooManyRequests):
                requests.take(-1)
            raise
        entered_s = self._clock()
        try:
            yield Admission(n_tokens, entered_s - began_s, tokens)
        finally:
            self._mean_held_s += 0.1 * (self._clock() - entered_s - self._mean_held_s)
            self._leave(name, n_places)

    def _check_rate(self, bucket: Bucket | None, amount: float, what: str) -> None:
        wait_s = 0.0 if bucket is None else bucket.wait_s(amount)
        if bucket is not None and wait_s > 0:
            raise TooManyRequests(
                f"this key's {bucket.per_min:g} {what} a minute are used up; try again in {wait_s:.1f} s", wait_s
            )

    async def _enter(self, name: str, n_places: int) -> None:
        if self._has_places(name, n_places) and not any(map(self._is_next, self._waiters)):
            self._running[name] += n_places
            return
        self._check_queue(name, n_places)
        waiter = Waiter(name, n_places, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._let_in()  # it may come before those that wait
        try:
            async with asyncio.timeout(self._config.max_wait_s):
                await waiter.place
        except BaseException as error:
            if waiter.place.done() and not waiter.place.cancelled():
                self._leave(name, n_places)  # the places came in the very moment of giving up
            else:
                self._waiters.remove(waiter)
                self._let_in()  # it may have been what others waited behind
            if isinstance(error, TimeoutError):
                raise TooManyRequests(
                    f"no place came free within {self._config.max_wait_s:g} s; try again",
                    self._retry_after_s(n_places),
                ) from None
            raise

    def _check_queue(self, name: str, n_places: int) -> None:
        n_own = sum(waiter.name == name for waiter in self._waiters)
        are_others = len(self._running.keys() | {waiter.name for waiter in self._waiters} | {name}) > 1
        is_full = len(self._waiters) >= self._config.max_queued
        if is_full or (are_others and n_own >= max(1, self._config.max_queued // 2)):
            whose = "the queue is full" if is_full else "this key's share of the queue is full"
            raise TooManyRequests(f"{whose}; try again later, or ask for less at a time", self._retry_after_s(n_places))

    def _retry_after_s(self, n_places: int) -> float:
        """When places should be free: after all that waits now, at the pace at which places came free of late."""
        n_wanted = sum(waiter.n_places for waiter in self._waiters) + n_places
        return max(1.0, min(MINUTE_S, self._mean_held_s * n_wanted / self._config.max_concurrent))

    @property
    def _per_key(self) -> int:
        return self._config.max_concurrent_per_key or self._config.max_concurrent

    @property
    def _most_places(self) -> int:
        return min(self._per_key, self._config.max_concurrent)

    def _has_places(self, name: str, n_places: int) -> bool:
        is_room = self.n_running + n_places <= self._config.max_concurrent
        return is_room and self._running[name] + n_places <= self._per_key

    def _is_next(self, waiter: Waiter) -> bool:
        """Whether it waits for places to come free, and not for its own key's answers to end."""
        return not waiter.place.done() and self._running[waiter.name] + waiter.n_places <= self._per_key

    def _leave(self, name: str, n_places: int) -> None:
        self._running[name] -= n_places
        if not self._running[name]:
            del self._running[name]
        self._let_in()

    def _let_in(self) -> None:
        """Give free places away: to the key with the fewest at work, and to the one that waits longest among equals.

        Nobody overtakes whoever that is, or a request for many places would wait for ever behind those for one.
        """
        while ready := list(filter(self._is_next, self._waiters)):
            chosen = min(ready, key=lambda waiter: self._running[waiter.name])
            if not self._has_places(chosen.name, chosen.n_places):
                return
            self._waiters.remove(chosen)
            self._running[chosen.name] += chosen.n_places
            chosen.place.set_result(None)


@dataclass(eq=False, slots=True)
class Waiter:
    name: str
    n_places: int
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
