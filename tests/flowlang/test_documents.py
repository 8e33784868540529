"""Documents as JSON and YAML: the same either way, and a sentence with a line when they cannot be read."""

from __future__ import annotations

import datetime
import inspect
from collections.abc import Callable

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlang.documents import (
    SIZE_LIMIT,
    DocumentError,
    flow_from_value,
    flow_to_value,
    migrate,
    read_json,
    read_yaml,
    write_json,
    write_yaml,
)
from flowlang.model import CodeStep, Flow, Json, LoopStep, RouterStep
from flowlang.values import canonical_json
from flowlang.yaml_text import read_yaml_value, write_yaml_value
from tests.flowlang.strategies import flows, json_values

ORDERS = inspect.cleandoc("""
    schema: 1
    name: Paid orders
    triggers:
      - id: order_paid
        piece: webhook
        event: catch
        input: {auth: hmac, secret: "{{connections.shop.secret}}"}
    steps:
      - id: order
        kind: code
        input: {raw: "{{trigger.body}}"}
        source: |
          export const code = ({ raw }) =>
            raw.total
      - id: size
        kind: router
        branches:
          - name: Big
            when: [[{left: "{{order}}", op: greater_than, right: 1000}]]
          - {name: Otherwise, fallback: true, steps: []}
      - id: each
        kind: loop
        items: "{{trigger.body.lines}}"
        concurrency: 4
""").encode()


class TestRoundTrip:
    @settings(max_examples=60)
    @given(flow=flows)
    def test_json_and_yaml_give_back_the_document(self, flow: Flow) -> None:
        assert read_json(write_json(flow)) == flow
        assert read_json(write_json(flow, indent=2)) == flow
        assert read_yaml(write_yaml(flow).encode()) == flow

    @given(value=json_values())
    def test_yaml_gives_back_any_json_value(self, value: Json) -> None:
        assert canonical_json(read_yaml_value(write_yaml_value(value))) == canonical_json(value)

    @given(value=st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("\n \t#:-|>'a", max_size=12))
    def test_yaml_gives_back_any_text(self, value: str) -> None:
        assert read_yaml_value(write_yaml_value({"a": [value]})) == {"a": [value]}

    def test_writing_twice_gives_the_same_text(self) -> None:
        flow = read_yaml(ORDERS)
        assert write_yaml(read_yaml(write_yaml(flow).encode())) == write_yaml(flow)


class TestReading:
    def test_a_document_in_yaml(self) -> None:
        flow = read_yaml(ORDERS)
        order, size, each = flow.steps
        assert isinstance(order, CodeStep)
        assert order.source == "export const code = ({ raw }) =>\n  raw.total\n"
        assert isinstance(size, RouterStep)
        assert size.branches[1].fallback
        assert isinstance(each, LoopStep)
        assert each.concurrency == 4

    def test_dates_yes_and_leading_zeros_are_texts(self) -> None:
        value = read_yaml_value("{a: 2026-01-31, b: yes, c: 007, d: 1_000, e: 2026-01-31T09:00:00Z, f: .inf, 404: x}")
        assert value == {
            "a": "2026-01-31", "b": "yes", "c": "007", "d": "1_000",
            "e": "2026-01-31T09:00:00Z", "f": ".inf", "404": "x",
        }  # fmt: skip

    def test_other_readers_of_yaml_see_the_same_values(self) -> None:
        value: Json = {"a": ["2026-01-31", "yes", "1e3", 1, 1.5, None, True, "x\ny\n"]}
        assert yaml.safe_load(write_yaml_value(value)) == value
        assert not isinstance(yaml.safe_load(write_yaml_value(value))["a"][0], datetime.date)

    def test_aliases_are_written_out(self) -> None:
        assert read_yaml_value("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}

    def test_a_byte_order_mark_is_no_fault(self) -> None:
        assert read_json(b'\xef\xbb\xbf{"name":"x"}').name == read_yaml(b"\xef\xbb\xbfname: x").name == "x"


class TestWriting:
    def test_schema_first_sources_as_blocks_defaults_left_out(self) -> None:
        text = write_yaml(read_yaml(ORDERS))
        assert text.startswith("schema: 1\nname: Paid orders\n")
        assert "source: |\n      export const code = ({ raw }) =>\n        raw.total\n" in text
        assert "on_error" not in text
        assert "language" not in text

    def test_json_says_its_schema(self) -> None:
        assert write_json(Flow(name="x")) == b'{"schema":1,"name":"x"}'


class TestMessages:
    @pytest.mark.parametrize(
        ("text", "line", "column", "words"),
        [
            ("name: x\nsteps:\n  - kind: foo\n    id: a", 3, 11, "`steps[0].kind` is `foo`"),
            ("name: x\nsteps:\n  - kind: loop\n    id: a", 3, 5, "lacks the field `items`"),
            ("name: x\nsteps:\n  - {kind: loop, id: a, items: x, step: []}", 3, 5, "unknown field `step`"),
            ("name: x\ntriggers:\n  - {id: a, piece: p, event: e, version: 1.2}", 3, 42, "Put it into quotes."),
            ("name: x\nname: y", 2, 1, "The key `name` stands twice"),
            ("name: x\nnote: [", 3, 1, "no YAML"),
            ("name: &x [*x]", 1, 11, "refers to itself"),
            ("name: *x", 1, 7, "no anchor"),
            ("name: !!python/object:os.system x", 1, 7, "tag"),
            ("? [a]\n: 1", 1, 3, "A key must be a text"),
            ("name: x\n--- \nname: y", 2, 1, "one flow"),
            ("", 1, 1, "empty"),
            ("- a", 1, 1, "object"),
        ],
    )
    def test_yaml_faults_point_to_their_line(self, text: str, line: int, column: int, words: str) -> None:
        with pytest.raises(DocumentError) as caught:
            read_yaml(text.encode())
        assert words in caught.value.message
        assert (caught.value.line, caught.value.column) == (line, column)

    @pytest.mark.parametrize(
        ("text", "line", "column", "words"),
        [
            ('{"name": "x",\n "note": }', 2, 10, "no JSON"),
            ('{"name": "x",', 1, 14, "no JSON"),
            ('{"name": "x",\n "steps": [{"id": "a"}]}', 2, 12, "lacks the field `kind`"),
            ('{"name": "x",\n "steps": {}}', 2, 11, "must be a list, not an object"),
        ],
    )
    def test_json_faults_point_to_their_line(self, text: str, line: int, column: int, words: str) -> None:
        with pytest.raises(DocumentError) as caught:
            read_json(text.encode())
        assert words in caught.value.message
        assert (caught.value.line, caught.value.column) == (line, column)

    @pytest.mark.parametrize("read", [read_json, read_yaml])
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b'{"name": "\xff"}', "UTF-8"),
            (b" " * (SIZE_LIMIT + 1), "1 MiB"),
            (b'{"name":"x","note":' + b"[" * 200_000, "deep"),
            (b'{"name":"x","steps":[' + b"[" * 130 + b"]" * 130 + b"]}", "deep"),
            (b'{"name":"x","schema":2}', "newer release"),
            (b'{"name":"x","schema":"1"}', "schema"),
            (b'{"name":"x","schema":0}', "schema"),
        ],
    )
    def test_what_no_reader_takes(self, read: Callable[[bytes], Flow], data: bytes, words: str) -> None:
        with pytest.raises(DocumentError) as caught:
            read(data)
        assert words in caught.value.message

    def test_aliases_that_unfold_without_end_are_refused(self) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
        with pytest.raises(DocumentError, match="2 MiB"):
            read_yaml("\n".join(lines).encode())

    @given(data=st.binary(max_size=60) | st.text("{}[]:,-&*!|>'\"\n a1", max_size=60).map(str.encode))
    def test_any_bytes_are_a_document_or_a_document_error(self, data: bytes) -> None:
        for read in (read_json, read_yaml):
            try:
                flow = read(data)
            except DocumentError:
                continue
            assert isinstance(flow, Flow)


class TestSchemas:
    def test_an_earlier_document_goes_through_every_migration(self) -> None:
        def second(document: dict[str, Json]) -> dict[str, Json]:
            return {**document, "name": f"{document['name']}!"}

        def third(document: dict[str, Json]) -> dict[str, Json]:
            return {**document, "note": document["name"]}

        migrated = migrate({"name": "x"}, {1: second, 2: third}, newest=3)
        assert migrated == {"schema": 3, "name": "x!", "note": "x!"}

    def test_a_document_of_today_stays(self) -> None:
        flow = flow_from_value({"name": "x", "schema": 1})
        assert flow_from_value(flow_to_value(flow)) == flow
