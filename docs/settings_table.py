"""Writes docs/settings.md from the settings classes: names, defaults, bounds, and the sentence below each field.

    python -m docs.settings_table            # write
    python -m docs.settings_table --check    # exit code 1 when the file is not what would be written

Decides: how a setting is shown. Leaves: what there is to set to the classes; whether it is fresh to tests/structure.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from chassis.settings import ServiceSettings
from gateway.settings import GatewaySettings
from services.auth.settings import AuthSettings
from services.executor.sandbox.settings import SandboxSettings
from services.executor.settings import ExecutorSettings
from services.files.settings import FilesSettings
from services.flows.settings import FlowsSettings
from services.webhooks.settings import WebhooksSettings

PATH = Path(__file__).with_name("settings.md")
SECTIONS: tuple[tuple[str, type[ServiceSettings]], ...] = (
    ("Every process", ServiceSettings),
    ("gateway", GatewaySettings),
    ("auth", AuthSettings),
    ("flows", FlowsSettings),
    ("webhooks", WebhooksSettings),
    ("executor", ExecutorSettings),
    ("files", FilesSettings),
)
OF_THE_PLACE = {
    "home": "`~/.local/share/millrace`",
    "executor_name": "the host's name",
    "max_jails": "2 a core",
}
"""Defaults that depend on where the process runs."""
HEAD = """# Settings

Written by `python -m docs.settings_table` from the settings classes; a test fails when it is stale.

Each setting is an environment variable, or a line in a file `.env` of the working directory; the environment counts
first. An empty value means the default. Lists and maps are JSON. In embedded mode nothing has to be set: `make up` runs
with `MILLRACE_HOME`, `MILLRACE_HOST` and `MILLRACE_PORT`, and sets `MILLRACE_PUBLIC_URL` and `MILLRACE_SOLE_EXECUTOR`
for its processes by itself.

For tests alone: `MILLRACE_FAILPOINTS` and `MILLRACE_FAILPOINT_LOG` (`chassis/failpoints.py`). The command line reads
`MILLRACE_URL`, `MILLRACE_PROJECT` and `MILLRACE_CONFIG` (`cli/api.py`, `cli/session.py`).
"""


def sentences(cls: type[Any]) -> dict[str, str]:
    """The text below each field of a class."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101  # its source is a class
    found: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(inspect.cleandoc(ast.literal_eval(text.value)).split())
    return found


def page() -> str:
    """The whole document."""
    parts = [HEAD]
    for title, cls in SECTIONS:
        said = sentences(cls)
        rows = [
            _row(f"MILLRACE_{name.upper()}", _default(name, field), _bounds(field), said.get(name, ""))
            for name, field in cls.model_fields.items()
            if name in cls.__annotations__ and field.annotation is not SandboxSettings
        ]
        parts.append(_table(title, f"`{cls.__name__}` in `{_file(cls)}`.", rows))
    said = sentences(SandboxSettings)
    rows = [_row(f"MILLRACE_SANDBOX__{name.upper()}", value, "", said.get(name, "")) for name, value in _of_jails()]
    parts.append(_table("executor: jails", f"`SandboxSettings` in `{_file(SandboxSettings)}`.", rows))
    return "\n".join(parts)


def _of_jails() -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(SandboxSettings):
        yield field.name, OF_THE_PLACE.get(field.name) or _shown(field.default)


def _file(cls: type[Any]) -> str:
    return cls.__module__.replace(".", "/") + ".py"


def _default(name: str, field: FieldInfo) -> str:
    if name in OF_THE_PLACE:
        return OF_THE_PLACE[name]
    if field.default_factory is not None:
        return _shown(field.get_default(call_default_factory=True, validated_data={}))
    return _shown(None if field.default is PydanticUndefined else field.default)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    text = str(value).replace("'", '"') if value not in (None, "", [], {}) else ""
    return f"`{text}`" if text and set(text) != {"*"} else "empty"


def _bounds(field: FieldInfo) -> str:
    words = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(one, word)}" for one in field.metadata for word, sign in words.items() if hasattr(one, word)
    ]
    return ", ".join(found)


def _row(name: str, default: str, bounds: str, sentence: str) -> str:
    return f"| `{name}` | {default} | {bounds} | {sentence} |"


def _table(title: str, where: str, rows: list[str]) -> str:
    return "\n".join(
        [f"## {title}", "", where, "", "| setting | default | bounds | what it does |", "|---|---|---|---|", *rows, ""]
    )


def main() -> int:
    """Write the document, or compare it."""
    if "--check" in sys.argv:
        return int(PATH.read_text() != page())
    PATH.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
