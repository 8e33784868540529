"""Inputs are read strictly, and a refusal says which field and what to mend."""

from typing import Annotated, Literal

import msgspec
import pytest
from millrace_sdk import Input, InputInvalid, ListOf, Number, Text
from millrace_sdk.decode import decode_input


class Line(msgspec.Struct, forbid_unknown_fields=True):
    price: float


class OrderInput(Input):
    customer: Annotated[str, Text("Customer", min_length=1)]
    lines: Annotated[list[Line], ListOf("Lines")] = msgspec.field(default_factory=list)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    count: Annotated[int, Number("Count", ge=1)] = 1
    paid: bool = False
    size: Literal["s", "l"] = "s"

    def __post_init__(self) -> None:
        if self.paid and not self.lines:
            raise ValueError("a paid order needs lines")


def refused(document: str) -> InputInvalid:
    with pytest.raises(InputInvalid) as failed:
        decode_input(OrderInput, document.encode())
    return failed.value


@pytest.mark.parametrize(
    ("document", "field", "part"),
    [
        (
            '{"customer": "a", "lines": [{"price": 1}, {"price": "2"}]}',
            "lines[1].price",
            "must be a number, it is a text",
        ),
        ('{"customer": "a", "lines": [{"price": 1, "x": 2}]}', "lines[0].x", "There is no field"),
        ('{"customer": "a", "lines": [{}]}', "lines[0].price", "is missing"),
        ('{"customer": "a", "lines": {}}', "lines", "must be a list, it is an object"),
        ('{"customer": "a", "labels": {"x": 1}}', "labels[...]", "must be a text"),
        ('{"customer": "a", "count": 0}', "count", ">= 1"),
        ('{"customer": "a", "count": 1.5}', "count", "must be a whole number, it is a number"),
        ('{"customer": "a", "count": "1"}', "count", "must be a whole number, it is a text"),
        ('{"customer": "a", "paid": "true"}', "paid", "must be true or false, it is a text"),
        ('{"customer": "a", "size": "xl"}', "size", "xl"),
        ('{"customer": ""}', "customer", "length >= 1"),
        ('{"customer": "a", "paid": true}', "", "a paid order needs lines"),
        ('{"customer": "a", "count": 1e999}', "count", "out of range"),
        ("NaN", "", "no JSON"),
        ("", "", "no JSON"),
    ],
)
def test_a_refusal_names_the_field(document: str, field: str, part: str) -> None:
    refusal = refused(document)
    assert (refusal.kind, refusal.field, refusal.retryable) == ("INPUT_INVALID", field, False)
    assert part in refusal.message
    assert refusal.message.endswith(".")


def test_what_fits_is_read_with_its_defaults() -> None:
    order = decode_input(OrderInput, b'{"customer":"a","lines":[{"price":2}]}')
    assert (order.customer, order.lines[0].price, order.count, order.size) == ("a", 2.0, 1, "s")
