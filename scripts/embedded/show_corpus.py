"""`python -m embedded.show_corpus --kind sums --n 5 [--held-out]`: documents of the corpus, for people to read."""

import argparse
import json
import random
from collections.abc import Iterator
from itertools import islice

from embedded.corpus import (
    KINDS,
    Chat,
    Document,
    Infill,
    Text,
    ToolChat,
    code_checks,
    held_out_documents,
    training_documents,
)


def main() -> int:
    options = parse_options()
    if options.held_out:
        kinds = [options.kind] if options.kind else list(KINDS)
        try:
            documents = [d for kind in kinds for d in held_out_documents(kind, options.seed, options.n)]
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
    else:
        documents = list(islice(drawn(options.kind, options.seed), options.n))
    print("\n\n".join(shown(document) for document in documents))
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m embedded.show_corpus", description=__doc__)
    parser.add_argument("--kind", choices=[*KINDS, "mixed"], help="only this kind (default: as they come)")
    parser.add_argument("--n", type=int, default=5, help="how many; of each kind with --held-out (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="default: a new one each time")
    parser.add_argument("--held-out", action="store_true", help="documents that training never sees")
    options = parser.parse_args()
    if options.n < 1:
        parser.error("--n is at least 1")
    if options.held_out and options.kind == "mixed":
        parser.error("mixtures are made of what is trained, so none is held out: choose another kind")
    return options


def drawn(kind: str | None, seed: int) -> Iterator[Document]:
    """Training documents, of one kind if it is given."""
    return (document for document in training_documents(seed) if kind in (None, document.kind))


def shown(document: Document) -> str:
    """A document as text, under a line with its kind and key."""
    lines = [f"--- {document.kind}: {document.key!r}"]
    match document:
        case Chat():
            if document.system:
                lines.append(f"system     {document.system}")
            for turn in document.turns:
                lines += [f"user       {turn.question}", f"assistant  {turn.answer}"]
            if document.kind == "code":
                lines.append(f"checks     {code_checks(document)}")
        case ToolChat():
            lines += [f"tool       {json.dumps(tool)}" for tool in document.tools]
            lines += [
                f"user       {document.question}",
                f"call       {document.call_name}({json.dumps(document.call_arguments)})",
                f"result     {document.result}",
                f"assistant  {document.answer}",
            ]
        case Infill():
            lines += [f"{document.prefix}«{document.middle}»{document.suffix}", f"checks     {document.checks}"]
        case Text():
            lines.append(document.text)
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
