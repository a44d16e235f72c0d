"""generate, chat and status against a stand-in client: what is printed where, and how each ends."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from swarm.cli import chat as chat_verb
from swarm.cli import generate as generate_verb
from swarm.cli import main as root
from swarm.cli import status as status_verb
from swarm.cli.chat import Conversation, talk
from swarm.cli.console import note_logs
from swarm.client.values import Generation, SwarmStatus, Timings, TokenEvent, Usage
from swarm.errors import BadArgument, LayersUncovered, SwarmError
from swarm.facts import Hop, NodeFact, NodeState, Route
from swarm.grammar import Grammar
from swarm.messages import HopTime
from swarm.sampling import SamplingParams
from swarm.terms import Address, ExpertRange, Infohash, NodeId, Profile, Span

MAGNET = "magnet:?xt=urn:btih:" + "a" * 40
NODES = (NodeId("a" * 52), NodeId("b" * 52))
ROUTE = Route(
    (Hop(NODES[0], Address("127.0.0.1", 1), Span(0, 2)), Hop(NODES[1], Address("127.0.0.1", 2), Span(2, 4))),
    Profile("fp32"),
)


class FakeStream:
    """Gives these texts, one a token; an exception among them is raised in its place. had: those of an earlier run."""

    def __init__(self, texts: Sequence[str | BaseException], had: Sequence[str] = ()) -> None:
        self._texts = texts
        self.shown: list[str] = list(had)
        self.is_cancelled = False

    def __iter__(self) -> Iterator[TokenEvent]:
        for index, text in enumerate(self._texts):
            if isinstance(text, BaseException):
                raise text
            self.shown.append(text)
            hop_times = tuple(HopTime(node_id, 0.001, 0.002) for node_id in NODES)
            yield TokenEvent(index, 100 + index, text, -0.5, ((100 + index, -0.5),), hop_times, 0.1 * (index + 1))

    def cancel(self) -> None:
        self.is_cancelled = True

    @property
    def result(self) -> Generation:
        n = len(self.shown)
        ids = tuple(range(100, 100 + n))
        timings = Timings(0.1, 0.1 * max(n, 1), 1, n)
        return Generation("".join(self.shown), ids, "stop", Usage(3, n), (-0.5,) * n, ROUTE, timings, 7)


class FakeClient:
    def __init__(self, *answers: Sequence[str | BaseException], seen: SwarmStatus | None = None) -> None:
        self._answers = [FakeStream(answer) for answer in answers]
        self.streams: list[FakeStream] = []
        self.asked: list[tuple[Any, SamplingParams]] = []
        self.journals: list[Path | None] = []
        self.grammars: list[Grammar | None] = []
        self.seen = seen
        self.release = SimpleNamespace(name="fake")

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def _next(self) -> FakeStream:
        self.streams.append(self._answers[len(self.streams)])
        return self.streams[-1]

    def stream(
        self, prompt: str, params: SamplingParams, *, journal: Path | None = None, grammar: Grammar | None = None
    ) -> FakeStream:
        self.asked.append((prompt, params))
        self.grammars.append(grammar)
        self.journals.append(journal)
        return self._next()

    def stream_chat(self, messages: Sequence[Mapping[str, str]], params: SamplingParams) -> FakeStream:
        self.asked.append((list(messages), params))
        return self._next()

    def resume(self, journal: Path) -> FakeStream:
        self.journals.append(journal)
        return self._next()

    def status(self) -> SwarmStatus:
        assert self.seen is not None
        return self.seen


def run(monkeypatch: pytest.MonkeyPatch, client: FakeClient, *args: str, stdin: str | None = None) -> Result:
    for module in (generate_verb, chat_verb, status_verb):
        monkeypatch.setattr(module, "open_client", lambda *_: client)
    monkeypatch.setattr("swarm.cli.config.default_path", lambda: Path("/nonexistent/config.toml"))
    return CliRunner().invoke(root.cli, list(args), input=stdin, prog_name="swarm")


class LosingStream(FakeStream):
    """Says before each token but the first that a node was lost."""

    def __iter__(self) -> Iterator[TokenEvent]:
        for event in super().__iter__():
            if event.index:
                logging.getLogger("swarm.client").info("node %d was lost", event.index)
            yield event


@pytest.mark.parametrize("verb", [("generate", MAGNET, "p"), ("chat", MAGNET)], ids=lambda verb: verb[0])
def test_what_is_said_in_the_middle_of_an_answer_begins_on_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    log = logging.getLogger("swarm.client")
    for name in ("handlers", "propagate", "level"):  # put back in the end
        monkeypatch.setattr(log, name, getattr(log, name))
    note_logs("swarm.client")
    client = FakeClient()
    client._answers = [LosingStream(["Par", "is\n", "is", ""])]
    result = run(monkeypatch, client, *verb, stdin="hello\n")
    assert result.stdout == "Paris\nis\n"
    assert result.stderr.startswith("\nnode 1 was lost\nnode 2 was lost\n\nnode 3 was lost\n")
    assert result.output.startswith("Par\nnode 1 was lost\nis\nnode 2 was lost\nis\nnode 3 was lost\n")


# -- generate ------------------------------------------------------------------------------------------------------


def test_text_goes_to_stdout_and_figures_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient(["Par", "is", "."])
    result = run(monkeypatch, client, "generate", MAGNET, "The capital is", "--max-tokens", "5", "--stop", "x")
    assert (result.exit_code, result.stdout) == (0, "Paris.\n")
    assert "3 + 3 tokens, 10.0 tokens/s" in result.stderr
    assert "2 nodes (aaaaaaaa[0:2] -> bbbbbbbb[2:4])" in result.stderr
    assert "1 route lost and replaced" in result.stderr
    assert client.asked == [("The capital is", SamplingParams(max_tokens=5, stop=("x",)))]


def test_a_grammar_comes_from_a_file_or_a_regular_expression(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "integer"}')
    client = FakeClient(["1"], ["1"], ["1"])
    assert run(monkeypatch, client, "generate", MAGNET, "p", "--json-schema", str(schema)).exit_code == 0
    assert run(monkeypatch, client, "generate", MAGNET, "p", "--regex", "[0-9]").exit_code == 0
    assert run(monkeypatch, client, "generate", MAGNET, "p").exit_code == 0
    assert client.grammars == [Grammar.json_schema({"type": "integer"}), Grammar.regex("[0-9]"), None]


@pytest.mark.parametrize(
    ("content", "args", "why"),
    [
        (b"{", (), "JSON schema is not JSON"),
        (b"[]", (), "must be an object"),
        (b"\xff", (), "cannot read the schema"),
        (b"{}", ("--regex", "a"), "either --json-schema or --regex"),
    ],
)
def test_a_bad_grammar_is_a_usage_error_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, args: tuple[str, ...], why: str
) -> None:
    schema = tmp_path / "schema.json"
    schema.write_bytes(content)
    client = FakeClient(["1"])
    result = run(monkeypatch, client, "generate", MAGNET, "p", "--json-schema", str(schema), *args)
    assert (result.exit_code, client.asked) == (2, [])
    assert why in result.stderr


def test_json_is_a_line_per_token_and_the_whole_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, FakeClient(["a", "b"]), "generate", MAGNET, "p", "--json", "--logprobs", "1")
    *tokens, done = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(t["event"], t["index"], t["text"]) for t in tokens] == [("token", 0, "a"), ("token", 1, "b")]
    assert tokens[0]["top_logprobs"] == [{"id": 100, "logprob": -0.5}]
    assert (done["event"], done["text"], done["ids"], done["seed"]) == ("done", "ab", [100, 101], 7)
    usage = {"prompt_tokens": 3, "prompt_tokens_cached": 0, "completion_tokens": 2, "total_tokens": 5}
    assert done["usage"] == usage
    assert [hop["layers"] for hop in done["route"]["hops"]] == ["0:2", "2:4"]
    assert {line["schema"] for line in (*tokens, done)} == {"swarm.generate/1"}


def test_the_prompt_may_come_from_a_file_or_stdin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("longer é\n", encoding="utf-8")
    for args, stdin, expected in (
        (("--file", str(prompt)), None, "longer é\n"),
        (("--file", "-"), "from stdin", "from stdin"),
        (("-",), "from stdin", "from stdin"),
    ):
        client = FakeClient(["x"])
        assert run(monkeypatch, client, "generate", MAGNET, *args, stdin=stdin).exit_code == 0
        assert client.asked[0][0] == expected


def test_a_journal_is_passed_on_and_resumed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    client = FakeClient(["x"], ["y"])
    run(monkeypatch, client, "generate", MAGNET, "p", "--journal", str(journal))
    journal.write_text("{}")
    assert run(monkeypatch, client, "generate", MAGNET, "--resume", str(journal)).stdout == "y\n"
    assert client.journals == [journal, journal]


def test_a_journal_at_its_end_gives_its_whole_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text("{}")
    client = FakeClient()
    monkeypatch.setattr(client, "resume", lambda _: FakeStream([], had=["Par", "is."]))
    result = run(monkeypatch, client, "generate", MAGNET, "--resume", str(journal))
    assert (result.exit_code, result.stdout) == (0, "Paris.\n")
    assert "the journal was at its end" in result.stderr


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), "no prompt"),
        (("p", "--file", "-"), "not both"),
        (("p", "--temperature", "-1"), "temperature"),
        (("p", "--resume", __file__), "leave out: prompt"),
        (("--resume", __file__, "--seed", "1"), "leave out: seed"),
        (("--resume", __file__, "--regex", "a"), "leave out: regex"),
    ],
)
def test_impossible_requests_are_usage_errors(
    monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], named: str
) -> None:
    client = FakeClient()
    result = run(monkeypatch, client, "generate", MAGNET, *args)
    assert result.exit_code == 2
    assert named in result.stderr
    assert client.asked == []


def test_a_failure_on_the_way_keeps_what_was_printed_and_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(
        monkeypatch, FakeClient(["half ", LayersUncovered("no host for 2-3", (2, 3))]), "generate", MAGNET, "p"
    )
    assert (result.exit_code, result.stdout) == (4, "half ")
    assert result.stderr.endswith("error: no host for 2-3\n")


def test_an_interrupt_ends_it_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient(["half", KeyboardInterrupt()])
    assert run(monkeypatch, client, "generate", MAGNET, "p").exit_code == 130
    assert client.streams[0].is_cancelled


# -- chat ----------------------------------------------------------------------------------------------------------


def test_piped_lines_are_turns_that_remember(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient(["hi"], ["fine"])
    result = run(monkeypatch, client, "chat", MAGNET, "--system", "be brief", stdin="hello\n\nhow?\n/quit\nnever\n")
    assert (result.exit_code, result.stdout) == (0, "hi\nfine\n")
    system, user = {"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}
    assert client.asked[0][0] == [system, user]
    assert client.asked[1][0] == [
        system,
        user,
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "how?"},
    ]


def test_piped_failures_end_the_chat_with_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient([LayersUncovered("nobody")], ["never"])
    assert run(monkeypatch, client, "chat", MAGNET, stdin="a\nb\n").exit_code == 4
    assert len(client.asked) == 1


def test_chat_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run(monkeypatch, FakeClient(["hi"]), "chat", MAGNET, "--json", stdin="a\n").stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["token", "done"]


def converse(client: FakeClient, *lines: str | type[BaseException]) -> Conversation:
    """A chat at a terminal with these lines typed; it ends by /quit, the end of input, or an interrupt."""
    conversation = Conversation(client, SamplingParams(), None)  # type: ignore[arg-type]
    typed = iter(lines)

    def read_line() -> str:
        line = next(typed, EOFError)
        if isinstance(line, str):
            return line
        raise line

    talk(conversation, read_line)
    return conversation


def test_an_interrupt_stops_the_answer_and_not_the_chat(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient(["half", KeyboardInterrupt()], ["more"])
    conversation = converse(client, "one", "two")
    assert client.streams[0].is_cancelled
    assert capsys.readouterr().out == "half [stopped]\nmore\n"
    assert [m["content"] for m in conversation.messages] == ["one", "half", "two", "more"]


def test_an_answer_stopped_before_its_first_word_is_forgotten() -> None:
    assert converse(FakeClient([KeyboardInterrupt()]), "one").messages == []


def test_a_failed_turn_is_told_and_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient([SwarmError("lost, because; do this")], ["ok"])
    conversation = converse(client, "one", "two")
    assert "error: lost, because; do this" in capsys.readouterr().err
    assert client.asked[1][0] == [{"role": "user", "content": "two"}]
    assert len(conversation.messages) == 2


def test_commands_change_the_next_answer() -> None:
    client = FakeClient(["x"], ["y"])
    converse(client, "/seed 5", "/temperature 0", "/max-tokens 9", "/system be brief", "a", "/reset", "/seed", "b")
    assert client.asked[0][1] == SamplingParams(seed=5, temperature=0.0, max_tokens=9)
    assert client.asked[1][1].seed is None
    assert client.asked[1][0] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "b"}]


@pytest.mark.parametrize("line", ["/seed x", "/temperature", "/temperature -3", "/max-tokens 0", "/nonsense"])
def test_a_wrong_command_is_told_and_changes_nothing(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    conversation = converse(FakeClient(), line)
    assert "error: " in capsys.readouterr().err
    assert conversation.params == SamplingParams()
    with pytest.raises(BadArgument):
        conversation.take(line)


def test_two_interrupts_in_a_row_at_the_prompt_leave() -> None:
    with pytest.raises(KeyboardInterrupt):
        converse(FakeClient(), KeyboardInterrupt, KeyboardInterrupt)
    converse(FakeClient(["x"]), KeyboardInterrupt, "a", KeyboardInterrupt, "/quit")


# -- status --------------------------------------------------------------------------------------------------------


def node_fact(node_id: NodeId, span: Span, **changes: Any) -> NodeFact:
    fields: dict[str, Any] = {
        "node_id": node_id,
        "release": Infohash("a" * 40),
        "address": Address("127.0.0.1", 7000),
        "seq": 1,
        "issued_at_s": 0.0,
        "ttl_s": 60.0,
        "state": NodeState.SERVING,
        "spans": (span,),
        "profile": Profile("bf16"),
        "n_layers": 4,
        "free_sessions": 8,
        "needed_bytes": 2_000_000,
        "fetched_bytes": 1_000_000,
    }
    return NodeFact(**{**fields, **changes})


def seen(hosts: tuple[int, ...], *nodes: NodeFact) -> SwarmStatus:
    return SwarmStatus("fake", Infohash("a" * 40), 4, nodes, hosts)


def test_status_names_nodes_and_missing_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    joining = node_fact(NODES[1], Span(2, 4), state=NodeState.JOINING, found_bytes=500_000)
    sharing = node_fact(NODES[0], Span(0, 2), uploaded_bytes=5_000_000, downloaded_bytes=2_000_000)
    client = FakeClient(seen=seen((1, 1, 0, 0), joining, sharing))
    result = run(monkeypatch, client, "status", MAGNET)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    has = ["100%", "of", "2.00", "MB", "1.00", "MB", "2.50"]
    assert lines[2].split() == ["aaaaaaaa", "serving", "0:2", "127.0.0.1:7000", "bf16", "8", *has]
    assert lines[3].split()[:2] == ["bbbbbbbb", "joining"]
    assert lines[3].split()[-7:] == ["75%", "of", "2.00", "MB", "1.00", "MB", "-"]
    assert lines[4] == "layers  11..  4"
    assert lines[5] == "nobody serves layers 2:4"
    assert "--layers 2:4" in result.stderr


def test_status_shows_experts_and_names_the_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    experts = (ExpertRange(Span(2, 4), (0,)),)
    whole = node_fact(NODES[0], Span(0, 2), n_experts=2)
    trunk = dataclasses.replace(whole, node_id=NODES[1], spans=(), trunks=(Span(2, 4),), experts=experts)
    counts = ((1, 1), (1, 1), (1, 0), (1, 0))
    status = dataclasses.replace(seen((1, 1, 0, 0), whole, trunk), hosts_per_expert=counts)
    result = run(monkeypatch, FakeClient(seen=status), "status", MAGNET)
    lines = result.stdout.splitlines()
    assert "trunk 2:4 experts 2-3:0" in result.stdout
    alone = dataclasses.replace(trunk, trunks=(), free_sessions=0)
    rows = run(monkeypatch, FakeClient(seen=dataclasses.replace(status, nodes=(whole, trunk, alone))), "status", MAGNET)
    free = [line.split("bf16")[1].split()[0] for line in rows.stdout.splitlines() if " bf16 " in line]
    assert free == ["8", "-", "8"], "no session comes to a host of experts alone"
    assert lines[4:7] == ["layers  11..  4", "expert 0  1111", "expert 1  11.."]
    assert "layer 2 expert 1 has no host, layer 3 expert 1 has no host" in lines
    assert "--experts 2-3:1" in result.stderr and "--layers" not in result.stderr
    fields = json.loads(run(monkeypatch, FakeClient(seen=status), "status", MAGNET, "--json").stdout)
    assert fields["hosts_per_expert"] == [[1, 1], [1, 1], [1, 0], [1, 0]]
    assert fields["missing_experts"] == ["2:1", "3:1"]
    assert [(node["trunks"], node["experts"]) for node in fields["nodes"]] == [([], []), (["2:4"], ["2-3:0"])]


@pytest.mark.parametrize(
    ("hosts", "cure"), [((1, 0), "--experts 0-3:1"), ((0, 0), "--experts 0-3:0,1"), ((1, 1), "wait")]
)
def test_a_trunk_that_is_joining_needs_no_other(
    monkeypatch: pytest.MonkeyPatch, hosts: tuple[int, ...], cure: str
) -> None:
    trunk = node_fact(NODES[0], Span(0, 4), state=NodeState.JOINING, spans=(), trunks=(Span(0, 4),), n_experts=2)
    status = dataclasses.replace(seen((0,) * 4, trunk), hosts_per_expert=(hosts,) * 4)
    told = run(monkeypatch, FakeClient(seen=status), "status", MAGNET).stderr
    assert cure in told and "--layers" not in told


def test_status_of_a_whole_swarm_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient(seen=seen((1, 1, 2, 2), node_fact(NODES[0], Span(0, 4)), node_fact(NODES[1], Span(2, 4))))
    assert "every layer is served, by 1 node at least" in run(monkeypatch, client, "status", MAGNET).stdout


def test_status_of_several_profiles_says_what_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node_fact(NODES[0], Span(0, 4)), node_fact(NODES[1], Span(0, 4), profile=Profile("fp32"))]
    told = run(monkeypatch, FakeClient(seen=seen((1, 1, 1, 1), *nodes)), "status", MAGNET).stdout
    assert "one profile" in told and "bf16, fp32" in told


def test_status_without_nodes_ends_with_4(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, FakeClient(seen=seen((0, 0, 0, 0))), "status", MAGNET, "--timeout", "0.1")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "no node of fake was found within 0.1 s" in result.stderr
    assert "in quotes, 'magnet:?…'" in result.stderr, "a link that may have been cut by the shell"
    whole = run(monkeypatch, FakeClient(seen=seen((0,) * 4)), "status", f"{MAGNET}&dn=fake", "--timeout", "0.1")
    assert "no node of fake was found within 0.1 s" in whole.stderr
    assert "quotes" not in whole.stderr


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_status_says_what_it_waits_for_once_that_takes_a_while(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    said: list[str] = []
    told = threading.Event()

    def note(text: str) -> None:
        said.append(text)
        told.set()

    class Slow(FakeClient):
        def status(self) -> SwarmStatus:
            assert told.wait(10.0) if seconds == 0 else not told.is_set()
            return super().status()

    monkeypatch.setattr("swarm.cli.console.note", note)
    monkeypatch.setattr(status_verb, "QUIET_S", seconds)
    whole = seen((1,) * 4, node_fact(NODES[0], Span(0, 4)))
    assert run(monkeypatch, Slow(seen=whole), "status", MAGNET, "--timeout", "60").exit_code == 0
    assert said == (["waiting up to 60 s more for nodes of fake to answer"] if seconds == 0 else [])


def test_status_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient(seen=seen((1, 1, 0, 0), node_fact(NODES[0], Span(0, 2))))
    fields = json.loads(run(monkeypatch, client, "status", MAGNET, "--json").stdout)
    assert fields["schema"] == "swarm.status/1"
    assert fields["missing_layers"] == [2, 3]
    assert fields["nodes"][0]["spans"] == ["0:2"]
    assert fields["nodes"][0]["state"] == "serving"
    assert fields["nodes"][0]["share_ratio"] is None


@pytest.mark.parametrize(
    ("hosts", "strip"),
    [((1, 0, 12), "1.+"), ((), ""), ((1,) * 64, "1" * 64), ((1,) * 64 + (0,), "1" * 32 + "."), ((3, 2) * 44, "2" * 44)],
)
def test_the_coverage_strip_shows_the_worst_of_each_column(hosts: tuple[int, ...], strip: str) -> None:
    assert status_verb.coverage_strip(hosts) == strip
