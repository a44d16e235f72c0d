from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.sampling import StopMatcher


def run(stops: list[str], pushes: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    shown = "".join([matcher.push(text) for text in pushes]) + matcher.flush()
    return shown, matcher.matched


def oracle(stops: list[str], text: str) -> tuple[str, str | None]:
    """Character by character: the first stop text that the text so far ends with, the longest of several."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            longest = max(ended, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4, unique=True),
    st.lists(st.text("ab\n", max_size=5), max_size=12),
)
def test_what_is_shown_does_not_depend_on_the_cuts(stops: list[str], pushes: list[str]) -> None:
    assert run(stops, pushes) == oracle(stops, "".join(pushes))


@given(
    st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3),
    st.lists(st.text("ab", max_size=3), max_size=10),
)
def test_no_part_of_a_stop_text_is_ever_shown_early(stops: list[str], pushes: list[str]) -> None:
    matcher, shown = StopMatcher(stops), ""
    for text in pushes:
        shown += matcher.push(text)
        assert oracle(stops, "".join(pushes))[0].startswith(shown)


def test_text_flows_through_at_once_when_it_cannot_begin_a_stop() -> None:
    matcher = StopMatcher(("###", "\nUser:"))
    assert matcher.push("Hello") == "Hello"
    assert matcher.push(" wor#") == " wor"
    assert matcher.push("ld") == "#ld"
    assert matcher.push("\nUse") == ""
    assert matcher.push(" it") == "\nUse it"
    assert not matcher.is_stopped


def test_a_stop_text_across_tokens_ends_the_text_before_it() -> None:
    matcher = StopMatcher(("\nUser:",))
    assert [matcher.push(t) for t in ("Bye.", "\n", "Us", "er", ":", " hi")] == ["Bye.", "", "", "", "", ""]
    assert matcher.is_stopped
    assert matcher.matched == "\nUser:"
    assert matcher.flush() == ""


def test_an_unfinished_stop_text_is_shown_at_the_end() -> None:
    assert run(["<end>"], ["a <en"]) == ("a <en", None)


def test_a_prefix_that_restarts_is_not_lost() -> None:
    assert run(["aab"], ["a", "a", "a", "b", "c"]) == ("a", "aab")


@pytest.mark.parametrize("stops", [[], ["zzz"]])
def test_without_a_match_nothing_is_lost(stops: list[str]) -> None:
    assert run(stops, ["a", "", "zz", "b"]) == ("azzb", None)
