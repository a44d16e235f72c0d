"""Messages of any shape are taken, or refused with a word about the field; none is a failure of the gateway."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.gateway.faults import BadField
from swarm.gateway.messages import SAFE_PROMPT, plain_messages, with_safe_prompt


def test_a_safe_prompt_goes_before_a_system_prompt_of_any_chunks() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    for content in ([thinking], [{"type": "text", "text": "be brief"}, thinking]):
        [system] = with_safe_prompt(plain_messages([{"role": "system", "content": content}]))
        assert system["content"] == [{"type": "text", "text": SAFE_PROMPT}, *content]
    [system] = with_safe_prompt(plain_messages([{"role": "system", "content": [{"type": "text", "text": "be brief"}]}]))
    assert system["content"] == f"{SAFE_PROMPT}\n\nbe brief"


@pytest.mark.parametrize("text", [["a"], {}, 1, None])
def test_a_chunk_of_text_is_a_text(text: Any) -> None:
    with pytest.raises(BadField) as caught:
        plain_messages([{"role": "system", "content": [{"type": "text", "text": text}]}])
    assert caught.value.loc == ("messages", 0, "content", 0, "text")
