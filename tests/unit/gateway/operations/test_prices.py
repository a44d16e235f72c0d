"""A price table is read whole, or refused with the key that is wrong."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from swarm.errors import BadArgument
from swarm.gateway.operations.prices import Price, load_prices

TABLE = """
currency = "EUR"
[default]
input_per_million = 1
output_per_million = 2
[models."a/b:c"]
input_per_million = 0.1
output_per_million = 0.30
"""


def test_a_table(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(TABLE)
    prices = load_prices(file)
    assert prices.currency == "EUR"
    assert prices.of("a/b:c") == Price(Decimal("0.1"), Decimal("0.30"))
    assert prices.of("else") == Price(Decimal(1), Decimal(2))
    assert prices.of("a/b:c").cost(3, 3) == Decimal("0.0000012")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("currency = ", "is not TOML"),
        ("", "currency is missing"),
        ('currency = ""', "currency is missing"),
        ("currency = 3", "currency is missing"),
        ('currency = "EUR"', "has no price"),
        (TABLE.replace("[default]", "[standard]"), "unknown key standard"),
        (TABLE.replace("input_per_million = 1", "input = 1"), "default must have exactly the keys"),
        (TABLE.replace("= 0.1", "= -0.1"), "models.a/b:c.input_per_million must be a number"),
        (TABLE.replace("= 0.1", "= nan"), "models.a/b:c.input_per_million must be a number"),
        (TABLE.replace("= 0.1", "= true"), "must be a number"),
        (TABLE.replace("= 0.1", '= "0.1"'), "must be a number"),
        ('currency = "EUR"\nmodels = 3', "models must hold"),
        ('currency = "EUR"\ndefault = 3', "default must have exactly"),
    ],
)
def test_a_table_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(BadArgument) as refused:
        load_prices(file)
    assert words in refused.value.message
    assert str(file) in refused.value.message


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="there is no price table"):
        load_prices(tmp_path / "prices.toml")
    with pytest.raises(BadArgument, match="cannot be read"):
        load_prices(tmp_path)
