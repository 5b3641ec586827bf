"""Numbers as people write them: Python's Decimal is the judge of what is read, and nothing is read by accident."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling.numbers import parse_number, parse_quantity

POWERS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10**15), st.integers(0, 10**6), st.sampled_from(sorted(POWERS)),
    st.sampled_from(["", "-", "+", "−"]),
    st.sampled_from(["", "_", " ", "'", "\u00a0", "\u202f"]), st.booleans(),
)  # fmt: skip
def test_the_value_is_that_of_exact_arithmetic(whole, fraction, suffix, sign, mark, spaced):
    grouped = f"{whole:,}".replace(",", mark)
    text = f"{sign}{grouped}.{fraction}{' ' * spaced}{suffix}"
    exact = Decimal(f"{whole}.{fraction}") * POWERS[suffix] * (-1 if sign in ("-", "−") else 1)
    assert parse_number(text) == pytest.approx(float(exact), rel=1e-15)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_python_writes_is_read_back_exactly(value):
    assert parse_number(repr(value)) == value
    assert parse_number(f"{value:.17E}") == value


def test_an_underscore_may_stand_between_any_digits_as_in_python_and_yaml():
    assert [parse_number(text) for text in ("1_0000", "1_00_000.5", "12_3e2")] == [10000, 100000.5, 12300]


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "e5", "1e", "1e5K", "1,000", "0,312", "1.234.567", "1__0", "1_", "_1", "0_312", "1 2",
        "1 000_000", "٣", "１２", "0x10", "0b1", "1j", "inf", "nan", "∞", "true", "yes", "12%", "$5", "7BB", "7 params",
        "70M x", "#REF!", "2026-01-01", "1:30", "1e400", "9" * 5000, "80GB", True, False, None, 10**400,
    ],
)  # fmt: skip
def test_nothing_else_is_a_number(text):
    with pytest.raises(ValueError, match="expected a number"):
        parse_number(text)


@pytest.mark.parametrize("text", ["1,5e21", "1,000", "0,5M", "-1.000,5"])
def test_of_a_comma_it_is_said_what_to_write(text):
    with pytest.raises(ValueError, match="decimal point"):
        parse_number(text)


def test_a_number_whose_unit_is_said_takes_no_suffix():
    assert [parse_quantity(text, ("GB",)) for text in ("80", "80GB", " 80 gb", 80, "1e2", "1 000")] == [
        80, 80, 80, 80, 100, 1000
    ]  # fmt: skip
    for text in ("80G", "80K", "0.5T", "80 MB", "80Gi", "GB", "80,5", "", "nan"):
        with pytest.raises(ValueError, match="GB"):
            parse_quantity(text, ("GB",))
