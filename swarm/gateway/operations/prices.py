"""What tokens cost: a price table in TOML, per million tokens, as model platforms quote theirs.

    currency = "EUR"
    [default]                          # for models that are not named; leave it out to price only those that are
    input_per_million = 0.10
    output_per_million = 0.30
    [models."Mistral-7B-v0.3"]
    input_per_million = 0.25
    output_per_million = 0.25

Amounts are decimal, never binary fractions: sums of them are exact.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from swarm.errors import BadArgument

FIELDS = ("input_per_million", "output_per_million")
MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Price:
    """Of a million tokens, in the table's currency."""

    input_per_million: Decimal
    output_per_million: Decimal

    def cost(self, tokens_in: float, tokens_out: float) -> Decimal:
        """Of so many tokens; fractions of one, as a node's share has them, count as such."""
        spent = Decimal(str(tokens_in)) * self.input_per_million + Decimal(str(tokens_out)) * self.output_per_million
        return spent / MILLION


@dataclass(frozen=True, slots=True)
class PriceTable:
    currency: str
    models: Mapping[str, Price] = field(default_factory=dict)
    default: Price | None = None

    def of(self, model: str) -> Price | None:
        """None where the table has no price for it."""
        return self.models.get(model, self.default)


def load_prices(file: Path) -> PriceTable:
    """Raises: BadArgument naming the file, the key and what is allowed."""
    try:
        document = tomllib.loads(file.read_bytes().decode(), parse_float=Decimal)
    except FileNotFoundError:
        raise BadArgument(f"there is no price table {file}; create it, or leave --prices out") from None
    except OSError as error:
        raise BadArgument(f"the price table {file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadArgument(f"{file} is not TOML: {error}") from error
    unknown = sorted(document.keys() - {"currency", "default", "models"})
    if unknown:
        raise BadArgument(f"{file}: unknown key {unknown[0]}; known keys: currency, default, models")
    currency, models = document.get("currency"), document.get("models", {})
    if not isinstance(currency, str) or not currency.strip():
        raise BadArgument(f'{file}: currency is missing; name it, as in currency = "EUR"')
    if not isinstance(models, dict):
        raise BadArgument(f'{file}: models must hold a table for each model; write [models."NAME"]')
    default = read_price(document["default"], f"{file}: default") if "default" in document else None
    prices = {name: read_price(table, f"{file}: models.{name}") for name, table in models.items()}
    if not prices and default is None:
        raise BadArgument(f'{file} has no price; add a table [models."NAME"] or [default] with {" and ".join(FIELDS)}')
    return PriceTable(currency.strip(), prices, default)


def read_price(table: Any, where: str) -> Price:
    if not isinstance(table, dict) or set(table) != set(FIELDS):
        raise BadArgument(f"{where} must have exactly the keys {' and '.join(FIELDS)}")
    return Price(*(read_amount(table[name], f"{where}.{name}") for name in FIELDS))


def read_amount(value: Any, where: str) -> Decimal:
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if not is_number or not Decimal(value).is_finite() or value < 0:
        raise BadArgument(f"{where} must be a number that is not negative, not {value!r}")
    return Decimal(value)
