"""The public surface changes only when someone says so."""

import inspect
from pathlib import Path

import millrace_sdk

from tests.sdk.surface import surface

GOLDEN = Path(__file__).with_name("surface.txt")


def test_the_public_surface_is_the_one_written_down() -> None:
    assert surface() == GOLDEN.read_text(), "accept with: python -m tests.sdk.surface > tests/sdk/surface.txt"


def test_every_public_name_is_documented() -> None:
    undocumented = [
        name
        for name in millrace_sdk.__all__
        if (inspect.isclass(value := getattr(millrace_sdk, name)) or inspect.isfunction(value)) and not value.__doc__
    ]
    assert undocumented == []
