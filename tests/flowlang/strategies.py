"""Random JSON values and flow documents for the properties of this folder."""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from flowlang.model import (
    ActionStep,
    Branch,
    CodeStep,
    Condition,
    Flow,
    Json,
    LoopStep,
    RespondStep,
    Retry,
    RouterStep,
    Step,
    Trigger,
)
from flowlang.structure import bodies, with_bodies

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
tricky_texts = st.sampled_from(
    [
        "yes", "null", "~", "1e3", "+1", "007", "0x1F", "1_000", "2026-01-31", "2026-01-31T09:00:00Z", "", " ", "a: b",
        "# no comment", "- item", "{{trigger.body}}", "line\nline\n", "line\n\n\n", "\nleading", "  indented\nx",
        "tab\there", "trailing \nspace", "a\r\nb", "\u2028", "\x85", "\ufeff", "é😀", "'\"", "*alias", "&anchor",
        "!tag", "?", "|", ">", "%", "@", "`", "=", "<<",
    ]
)  # fmt: skip
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
keys = st.sampled_from(["a", "b", "0", "1", "10", "01", "-1", "length", "constructor", "toString", "x y", "4294967295"])


def json_values(max_leaves: int = 12) -> st.SearchStrategy[Json]:
    scalars = st.none() | st.booleans() | numbers | texts | tricky_texts
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | texts, inner, max_size=3),
        max_leaves=max_leaves,
    )


inputs = st.dictionaries(texts, json_values(4), max_size=2)
notes = st.just("") | texts | tricky_texts
sources = st.sampled_from(
    ["export const code = () => 1", "export const code = async (i) => {\n  return `${i.a}`\n}\n", "// x\n\n\tlet y\n"]
)
retries = st.none() | st.builds(Retry, max_attempts=st.integers(1, 9), backoff=st.floats(1, 4))
placeholder = st.just("x")


def _leaves() -> st.SearchStrategy[Step]:
    return st.one_of(
        st.builds(
            ActionStep,
            id=placeholder,
            piece=texts,
            action=texts,
            input=inputs,
            retry=retries,
            note=notes,
            effect=st.sampled_from([None, "pure", "read"]),
        ),
        st.builds(CodeStep, id=placeholder, source=sources | tricky_texts, input=inputs, skip=st.booleans()),
        st.builds(RespondStep, id=placeholder, status=json_values(2), headers=inputs, body=json_values(4)),
    )


_conditions = st.builds(Condition, left=json_values(2), op=st.sampled_from(["equals", "exists", ""]), right=texts)


def _blocks(inner: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    steps = st.lists(inner, max_size=3)
    branch = st.builds(
        Branch,
        name=texts,
        when=st.lists(st.lists(_conditions, max_size=2), max_size=2),
        fallback=st.booleans(),
        steps=steps,
    )
    router = st.builds(RouterStep, id=placeholder, branches=st.lists(branch, max_size=2), note=notes)
    loop = st.builds(LoopStep, id=placeholder, items=json_values(2), steps=steps, concurrency=st.integers(1, 4))
    return router | loop


steps = st.recursive(_leaves(), _blocks, max_leaves=6)
triggers = st.builds(Trigger, id=placeholder, piece=texts, event=texts, input=inputs, note=notes)


def numbered(flow: Flow) -> Flow:
    """The flow with ids s1, s2, … in the order of the document, so that they are unique."""
    count = 0

    def name() -> str:
        nonlocal count
        count += 1
        return f"s{count}"

    def renumbered(step: Step) -> Step:
        new = replace(step, id=name())
        return with_bodies(new, [[renumbered(inner) for inner in body] for body in bodies(new)])

    new_triggers = [replace(trigger, id=name()) for trigger in flow.triggers]
    return replace(flow, triggers=new_triggers, steps=[renumbered(step) for step in flow.steps])


flows = st.builds(
    Flow,
    name=texts,
    triggers=st.lists(triggers, max_size=2),
    steps=st.lists(steps, max_size=4),
    note=notes,
).map(numbered)
