"""Writes down what the SDK offers: every public name with its signature, fields and bases.

`python -m tests.sdk.surface > tests/sdk/surface.txt` accepts a change; the difference then shows in the review.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass

import millrace_sdk
import msgspec


def surface() -> str:
    """The public surface as text, one name after the other."""
    return "\n".join(line for name in sorted(millrace_sdk.__all__) for line in _lines(name)) + "\n"


def _lines(name: str) -> Iterator[str]:
    value = getattr(millrace_sdk, name)
    if name == "Json":
        yield "Json"  # Any at run time, a recursive union for the type checker
    elif inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {name}({bases})" if bases else f"class {name}"
        yield from (f"    {line}" for line in _members(value))
    elif inspect.isfunction(value):
        yield f"def {name}{_signature(value)}"
    elif name == "KINDS":
        yield f"{name}: {', '.join(sorted(value))}"
    else:
        yield f"{name} = {value!r}"


def _members(owner: type) -> Iterator[str]:
    if is_dataclass(owner):
        for field in fields(owner):
            yield f"{field.name}: {field.type}" + (f" = {field.default!r}" if _plain(field.default) else "")
    elif issubclass(owner, msgspec.Struct):
        for item in msgspec.structs.fields(owner):
            yield f"{item.name}: {item.type}" + (
                f" = {item.default!r}" if item.default is not msgspec.NODEFAULT else ""
            )
    for name, member in sorted(vars(owner).items()):
        written = name == "__init__" and not is_dataclass(owner) and not getattr(owner, "_is_protocol", False)
        if inspect.isfunction(member) and (written or name == "__call__" or not name.startswith("_")):
            yield f"{'async ' if inspect.iscoroutinefunction(member) else ''}def {name}{_signature(member)}"


def _plain(default: object) -> bool:
    return default is not MISSING and not callable(default)


def _signature(function: object) -> str:
    assert callable(function)
    return str(inspect.signature(function))


if __name__ == "__main__":
    print(surface(), end="")
