"""The guide for piece authors: every block of Python in it runs, in order, in one namespace."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "sdk" / "README.md"


def test_every_example_of_the_guide_runs() -> None:
    text = README.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) >= 4

    namespace: dict[str, object] = {"__name__": "sdk_readme"}
    for block in blocks:
        first_line = text.count("\n", 0, block.start(1))
        code = compile("\n" * first_line + block.group(1), str(README), "exec")
        exec(code, namespace)  # noqa: S102 - our own document, run so that it stays true
