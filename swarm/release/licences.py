"""What licences that weights come under ask of whoever hosts them. Not legal advice: the licence's own text counts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from swarm.errors import LicenceNotAccepted


@dataclass(frozen=True, slots=True)
class Licence:
    """terms: two lines, what it allows and what it does not. is_open: free for every use, so nobody is asked."""

    name: str
    title: str
    terms: tuple[str, str]
    is_open: bool = False


LICENCES = {
    licence.name: licence
    for licence in (
        Licence(
            "apache-2.0",
            "Apache License 2.0",
            ("Any use, commercial too.", "Pass the licence and its notices on with the weights."),
            is_open=True,
        ),
        Licence("mit", "MIT License", ("Any use, commercial too.", "Pass the notice on."), is_open=True),
        Licence(
            "mrl",
            "Mistral AI Research License",
            (
                "Research and personal, non-commercial use is allowed, and passing the weights on under this licence.",
                "Serving them for a business, or anything with a commercial aim, needs a licence from Mistral AI.",
            ),
        ),
        Licence(
            "mnpl",
            "Mistral AI Non-Production License",
            (
                "Testing, research and personal use outside of production is allowed, and passing the weights on so.",
                "Production use, and serving others for money or in a business, needs a licence from Mistral AI.",
            ),
        ),
        Licence(
            "cc-by-nc-4.0",
            "Creative Commons Attribution-NonCommercial 4.0",
            (
                "Sharing and adapting with attribution is allowed for non-commercial purposes.",
                "Anything that is primarily for commercial advantage or money is not.",
            ),
        ),
    )
}

_ALIASES = {
    "mistral-ai-research-license": "mrl",
    "mistral-research-license": "mrl",
    "mrl-0.1": "mrl",
    "mistral-ai-non-production-license": "mnpl",
    "mnpl-0.1": "mnpl",
    "cc-by-nc": "cc-by-nc-4.0",
    "apache2.0": "apache-2.0",
    "apache-2": "apache-2.0",
}


def canonical_licence(name: str) -> str:
    """The name that a licence goes by here; unknown ones in lower case."""
    lowered = name.strip().lower().replace("_", "-").replace(" ", "-").replace("licence", "license")
    return _ALIASES.get(lowered, lowered)


def check_licence(licence: str | None, accepted: Collection[str], what: str) -> None:
    """Return if weights under this licence may be hosted: it is open, unknown to us, unstated, or among `accepted`.

    Raises: LicenceNotAccepted with its terms in two lines and the flag that accepts them.
    """
    if licence is None:
        return
    known = LICENCES.get(canonical_licence(licence))
    if known is None or known.is_open or known.name in {canonical_licence(name) for name in accepted}:
        return
    raise LicenceNotAccepted(
        f"{what} is under the {known.title} ({known.name}), which is not free for every use:\n"
        f"  {known.terms[0]}\n  {known.terms[1]}\n"
        f"If that is how you use it, add: --accept-licence {known.name}"
    )
