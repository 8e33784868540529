"""docs/settings.md is what the settings classes say, and each setting says something."""

from docs.settings_table import PATH, page


def test_the_document_is_fresh() -> None:
    assert PATH.read_text() == page(), "write it anew: python -m docs.settings_table"


def test_every_setting_has_a_sentence() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `MILLRACE_")]
    assert [row for row in rows if row.endswith("|  |")] == []
