"""The piece that reshapes data without a line of code; all of it pure."""

from millrace_sdk import Piece

from .lists import aggregate, filter_list
from .objects import merge, pick, set_fields
from .texts import format_date, join, parse_json, split

piece = Piece(
    name="data",
    version="0.1.0",
    title="Data",
    summary="Builds, filters and sums up values without code.",
    actions=[set_fields, merge, pick, filter_list, aggregate, join, split, parse_json, format_date],
)

__all__ = ["piece"]
