"""Who may have how much, who yields, and whose turn it is: rules over numbers."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from node.stage.batch import TURN_ROWS, BatchConfig, Job, next_batch, who_sits_out
from node.stage.shares import RESERVED_PART, YIELDING_IDLE_S, FairClock, Tenant, may_have, who_yields

CONFIG = BatchConfig(max_rows=64, prompt_rows=32)

TENANTS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.integers(0, 4), st.integers(0, 5), st.sampled_from([0.0, 1.0, YIELDING_IDLE_S, 60.0])
    ),
    max_size=12,
).map(
    lambda drawn: tuple(
        Tenant(client, (client, generation), nth, held, idle)
        for nth, (client, generation, held, idle) in enumerate(drawn)
    )
)


@given(
    wanted=st.integers(0, 50), mine=st.integers(0, 50), others=st.integers(0, 100), limit=st.integers(1, 100),
    n_clients=st.integers(1, 5),
)  # fmt: skip
def test_what_is_granted_fits_and_nobody_takes_the_reserve_beyond_an_equal_share(
    wanted: int, mine: int, others: int, limit: int, n_clients: int
) -> None:
    left = limit - mine - others - wanted
    if may_have(wanted, mine=mine, used=mine + others, limit=limit, n_clients=n_clients):
        assert left >= 0
        has_share = mine == 0 or (mine + wanted) * max(2, n_clients) <= limit
        assert has_share or left >= limit // RESERVED_PART
    elif mine == 0:
        assert left < 0, "a first one is only refused where it does not fit"


def test_a_client_alone_leaves_room_for_who_comes_next_who_gets_up_to_a_half() -> None:
    n_flood = 0
    while may_have(1, mine=n_flood, used=n_flood, limit=64, n_clients=1):
        n_flood += 1
    assert n_flood == 48
    n_light = 0
    while may_have(1, mine=n_light, used=n_flood + n_light, limit=64, n_clients=2):
        n_light += 1
    assert n_light == 16
    # As the flood's sessions end, the places are the other's, until both have as many.
    while may_have(1, mine=n_light, used=n_flood - 1 + n_light, limit=64, n_clients=2):
        n_flood, n_light = n_flood - 1, n_light + 1
        assert not may_have(1, mine=n_flood, used=n_flood + n_light - 1, limit=64, n_clients=2) or n_flood < 32
    assert n_light == 32


@given(TENANTS)
def test_the_oldest_that_moves_never_yields_and_somebody_does_wherever_anybody_can(tenants: tuple[Tenant, ...]) -> None:
    yielding = who_yields(tenants)
    holding = [tenant for tenant in tenants if tenant.held_bytes]
    idle = [tenant for tenant in holding if tenant.idle_s >= YIELDING_IDLE_S]
    oldest = tenants[0].generation if tenants else None
    if yielding is None:
        assert not idle and all(tenant.generation == oldest for tenant in holding)
        return
    assert yielding in holding
    if idle:
        assert yielding.idle_s == max(tenant.idle_s for tenant in idle)
        assert who_yields(tenants, idle_only=True) == yielding
        return
    assert who_yields(tenants, idle_only=True) is None
    assert yielding.generation != oldest
    held: Counter[object] = Counter()
    for tenant in tenants:
        held[tenant.client] += tenant.held_bytes
    younger = [tenant for tenant in holding if tenant.generation != oldest]
    assert held[yielding.client] == max(held[tenant.client] for tenant in younger)
    assert yielding.nth == max(tenant.nth for tenant in younger if tenant.client == yielding.client)


def job(client: str, session: str, n_rows: int) -> Job:
    return Job(session, "whole", n_rows, None, lambda job: None, 0.0, client=client)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 120)), min_size=1, max_size=30),
    st.fixed_dictionaries({client: st.integers(0, 100) for client in "abc"}),
)
def test_whoever_is_left_waiting_was_served_as_much_as_those_who_got_a_turn(
    wishes: list[tuple[str, int]], times: dict[str, int]
) -> None:
    waiting = [job(client, str(nth), n_rows) for nth, (client, n_rows) in enumerate(wishes)]
    batch = next_batch(waiting, CONFIG, time=lambda client: times[str(client)])
    taken: Counter[str] = Counter(times)
    for part in batch:
        taken[str(part.job.client)] += part.n_rows
    rows = {part.job: part.n_rows for part in batch}
    prompts = [one for one in waiting if not one.is_decode]
    hungry = {str(one.client) for one in prompts if rows.get(one, 0) < one.n_rows}
    if prompts:
        assert rows[prompts[0]] >= min(TURN_ROWS, prompts[0].n_rows), "the oldest is never left out"
    fed = {str(one.client) for one in prompts[1:] if one in rows}
    for client in fed:
        for other in hungry:
            assert taken[client] - 2 * TURN_ROWS <= taken[other]


@given(n_light=st.integers(1, 512), n_flood=st.integers(1, 12), n_before=st.integers(16, 30), decode=st.integers(0, 12))
def test_a_newcomers_prompt_goes_ahead_of_a_flood(n_light: int, n_flood: int, n_before: int, decode: int) -> None:
    """It takes as many batches as it has slices, however many prompts and tokens of the flood wait, whose oldest prompt
    moves on too.
    """
    clock = FairClock()

    def flood() -> list[Job]:
        prompts = [job("flood", f"prompt {nth}", 500) for nth in range(n_flood)]
        return prompts + [job("flood", f"decode {nth}", 1) for nth in range(decode)]

    def serve(waiting: list[Job]) -> dict[Job, int]:
        batch = next_batch(waiting, CONFIG, time=clock.time)
        rows: Counter[object] = Counter()
        for part in batch:
            rows[part.job.client] += part.n_rows
        clock.charge(rows)
        return {part.job: part.n_rows for part in batch}

    for _ in range(n_before):
        serve(flood())
    light = job("light", "one", n_light)
    n_batches = 0
    while light.n_left:
        light.n_done += serve([*flood(), light]).get(light, 0)
        n_batches += 1
    room = CONFIG.max_rows - decode if light.is_decode else CONFIG.prompt_rows - TURN_ROWS
    assert n_batches == -(-n_light // room)


def test_who_had_much_more_sits_out_for_a_prompt_and_nobody_else() -> None:
    waiting = [job("flood", "decode", 1), job("chat", "decode", 1), job("light", "prompt", 200)]
    times = {"flood": 900.0, "chat": 100.0, "light": 0.0}
    assert who_sits_out(waiting, lambda client: times[str(client)]) == {"flood"}
    assert who_sits_out(waiting[:2], lambda client: times[str(client)]) == frozenset(), "tokens need no batch alone"
    assert who_sits_out([*waiting[:2], job("light", "long", 900)], lambda client: times[str(client)]) == {"flood"}
    assert who_sits_out([*waiting[:2], job("light", "long", 901)], lambda client: times[str(client)]) == frozenset()


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 600), min_size=1), max_size=60))
def test_nobody_is_owed_or_owes_more_than_the_credit(batches: list[dict[str, int]]) -> None:
    clock = FairClock(credit_rows=100.0)
    for rows in batches:
        clock.charge(rows)
        times = [clock.time(client) for client in "abcd"]
        assert max(times) - min(times) <= 200.0


def test_two_that_always_wait_are_served_alike_whatever_the_size_of_their_prompts() -> None:
    clock = FairClock()
    served: Counter[str] = Counter()
    for _ in range(200):
        waiting = [job("many", f"m{nth}", 40) for nth in range(20)] + [job("one", "long", 4000)]
        rows: Counter[object] = Counter()
        for part in next_batch(waiting, CONFIG, time=clock.time):
            rows[part.job.client] += part.n_rows
            served[str(part.job.client)] += part.n_rows
        clock.charge(rows)
    assert abs(served["many"] - served["one"]) <= CONFIG.max_rows
