"""docs/errors.md names every reason and kind that the code raises, where it is raised, and none that is gone."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SHIPPED = ("chassis", "flowlang", "services", "gateway", "cli", "pieces", "sdk/src")
CITES = ("gateway/refusals.py", "gateway/hook_paths.py", "gateway/routes/")
"""These document what others raise: they may name nothing else."""
WORDS = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
WORD = re.compile(r"[A-Z]{3,}")
NO_REASONS = re.compile(r"MILLRACE_\w+|XDG_CONFIG_HOME|ICU_DATA|LC_ALL|PG_VERSION|DEFAULT_TIMEOUT")
RAISING = re.compile(
    r"Fault|Failure|RunError|ActionFailed|Internal|Invalid|Unavailable|NotFound|Conflict|Denied|Limited"
)
ROW = re.compile(r"^\| `([A-Z_0-9]+)` \|.*\| `([\w./]+)` \|$", re.M)


def _texts(node: ast.expr) -> list[str]:
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _reasons_in(path: Path) -> set[str]:
    """Texts of several words in capitals; of one word only as an argument of what is raised or noted as a fault."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant):
            found.update(text for text in _texts(node) if WORDS.fullmatch(text))
        elif isinstance(node, ast.Call) and RAISING.fullmatch(ast.unparse(node.func).rpartition(".")[2]):
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            found.update(text for one in arguments for text in _texts(one) if WORD.fullmatch(text))
    return {text for text in found if not NO_REASONS.fullmatch(text)}


def _by_reason() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Reason → files that raise it; reason → files that cite it."""
    raised: dict[str, set[str]] = defaultdict(set)
    cited: dict[str, set[str]] = defaultdict(set)
    for folder in SHIPPED:
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            into = cited if name.startswith(CITES) else raised
            for reason in _reasons_in(path):
                into[reason].add(name)
    return raised, cited


def _documented() -> dict[str, set[str]]:
    rows: dict[str, set[str]] = defaultdict(set)
    for reason, file in ROW.findall((ROOT / "docs/errors.md").read_text()):
        rows[reason].add(file)
    return rows


def test_every_reason_is_documented_and_none_that_is_gone() -> None:
    raised, documented = _by_reason()[0], _documented()
    assert sorted(raised.keys() - documented.keys()) == [], "raised, but not in docs/errors.md"
    assert sorted(documented.keys() - raised.keys()) == [], "in docs/errors.md, but raised nowhere"


def test_each_reason_is_raised_where_the_document_says() -> None:
    raised = _by_reason()[0]
    wrong = {reason: files - raised[reason] for reason, files in _documented().items()}
    assert {reason: files for reason, files in wrong.items() if files} == {}


def test_the_openapi_document_cites_only_reasons_that_are_raised() -> None:
    raised, cited = _by_reason()
    assert sorted(cited.keys() - raised.keys()) == []
