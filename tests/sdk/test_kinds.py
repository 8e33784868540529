"""One table of the platform's kinds of failure: none is missing, none is never raised."""

import re
from pathlib import Path

from millrace_sdk import KINDS

ROOT = Path(__file__).parents[2]
RAISED = re.compile(r'(?:ActionFailed|super\(\)\.__init__)\(\s*"([A-Z_]+)"')


def test_the_table_holds_exactly_the_kinds_that_are_raised() -> None:
    sources = [
        *(ROOT / "sdk/src").rglob("*.py"),
        *(ROOT / "pieces").rglob("*.py"),
        *(ROOT / "services/executor").rglob("*.py"),
    ]
    raised = {kind for source in sources for kind in RAISED.findall(source.read_text())}
    assert raised == set(KINDS)


def test_each_kind_has_a_sentence() -> None:
    assert all(sentence.endswith(".") and len(sentence) > 20 for sentence in KINDS.values())
