"""What licences that weights come under ask of whoever hosts them. Not legal advice: the licence's own text counts."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from swarm.errors import LicenceNotAccepted
from swarm.release.files import UNNAMED


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
            "modified-mit",
            "MIT License with Mistral AI's addition",
            ("Any use.", "Large companies need a licence from Mistral AI: read the text that comes with it."),
            is_open=True,
        ),
        *(
            Licence(name, title, ("Any use, commercial too.", "Name the authors."), is_open=True)
            for name, title in (
                ("bsd-2-clause", "BSD 2-Clause License"),
                ("bsd-3-clause", "BSD 3-Clause License"),
                ("cc-by-4.0", "Creative Commons Attribution 4.0"),
                ("cc-by-sa-4.0", "Creative Commons Attribution-ShareAlike 4.0"),
                ("cc0-1.0", "Creative Commons Zero 1.0"),
            )
        ),
        Licence(
            "mrl",
            "the Mistral AI Research License",
            (
                "Research and personal, non-commercial use is allowed, and passing the weights on under this licence.",
                "Serving them for a business, or anything with a commercial aim, needs a licence from Mistral AI.",
            ),
        ),
        Licence(
            "mnpl",
            "the Mistral AI Non-Production License",
            (
                "Testing, research and personal use outside of production is allowed, and passing the weights on so.",
                "Production use, and serving others for money or in a business, needs a licence from Mistral AI.",
            ),
        ),
    )
}

_NON_COMMERCIAL = (
    "Sharing with attribution is allowed for non-commercial purposes, under the conditions that its name lists.",
    "Anything that is primarily for commercial advantage or money is not.",
)
_UNKNOWN = (
    "Its terms are not known to this program: read them where the release states them (README.md, LICENSE).",
    "Names with nc, non-commercial, research or non-production forbid serving it for money or in a business.",
)

_ALIASES = {
    "mistral-ai-research-license": "mrl",
    "mistral-research-license": "mrl",
    "mrl-0.1": "mrl",
    "mistral-ai-non-production-license": "mnpl",
    "mnpl-0.1": "mnpl",
    "apache2.0": "apache-2.0",
    "apache-2": "apache-2.0",
}


def canonical_licence(name: str) -> str:
    """The name that a licence goes by here; unknown ones in lower case, of letters, digits, dots, pluses and dashes."""
    plain = re.sub(r"[^a-z0-9.+]+", "-", name.lower().replace("licence", "license")).strip("-")
    return _ALIASES.get(plain, plain) or UNNAMED


def find_terms(name: str) -> Licence:
    """What a licence asks, by its canonical name; one that is not known is not open."""
    if name in LICENCES:
        return LICENCES[name]
    if re.fullmatch(r"cc-by-nc(-sa|-nd)?(-[0-9.]+)?", name):
        return Licence(name, f"the Creative Commons licence {name.removeprefix('cc-').upper()}", _NON_COMMERCIAL)
    return Licence(name, "a licence of its own" if name != UNNAMED else "a licence that it does not name", _UNKNOWN)


def check_licence(licence: str | None, accepted: Collection[str], what: str) -> None:
    """Return if weights under this licence may be hosted: it is open, unstated, or among `accepted`.

    Raises: LicenceNotAccepted with its terms in two lines and the flag that accepts them.
    """
    if licence is None:
        return
    known = find_terms(canonical_licence(licence))
    if known.is_open or known.name in {canonical_licence(name) for name in accepted}:
        return
    is_free = "may not be" if known.terms is _UNKNOWN else "is not"
    raise LicenceNotAccepted(
        f"{what} is under {known.title} ({known.name}), which {is_free} free for every use:\n"
        f"  {known.terms[0]}\n  {known.terms[1]}\n"
        f"If that is how you use it, add: --accept-licence {known.name}"
    )
