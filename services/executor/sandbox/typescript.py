"""TypeScript to JavaScript by taking the types away.

Decides: which nodes of the tree are types and vanish, and which parts of TypeScript would need new code and are
refused (enums, namespaces, parameter properties, decorators).
Leaves: exports to modules.py; JavaScript's own errors to V8, which sees the rest.

Three places need more than blanks, because JavaScript reads line ends there: a statement that vanishes leaves `;`; an
arrow function's `)` moves behind a return type of several lines; a line that begins with a bracket after a vanished
type gets a `;`.
"""

from __future__ import annotations

import tree_sitter

from services.executor.sandbox.blanks import Blanks, Problem

_TYPES = frozenset(
    [
        "accessibility_modifier",
        "adding_type_annotation",
        "asserts_annotation",
        "implements_clause",
        "omitting_type_annotation",
        "opting_type_annotation",
        "override_modifier",
        "type_annotation",
        "type_arguments",
        "type_parameters",
        "type_predicate_annotation",
    ]
)
_STATEMENTS = frozenset(
    ("interface_declaration", "type_alias_declaration", "ambient_declaration", "function_signature")
)
_MEMBERS = frozenset(("abstract_method_signature", "index_signature", "method_signature"))
_PARAMETERS = frozenset(("required_parameter", "optional_parameter"))
_REFUSED = {
    "enum_declaration": "Enums are not supported in code steps: use an object, `const Color = { Red: 'red' } as const`",
    "internal_module": "Namespaces are not supported in code steps: use an object or plain functions",
    "module": "Namespaces are not supported in code steps: use an object or plain functions",
    "import_alias": "Imports are not available in code steps",
    "decorator": "Decorators are not supported in code steps",
}
_MODIFIERS = {
    "class_declaration": frozenset(("abstract",)),
    "abstract_class_declaration": frozenset(("abstract",)),
    "class": frozenset(("abstract",)),
    "public_field_definition": frozenset(("readonly", "?", "!", "declare", "abstract")),
    "method_definition": frozenset(("?", "readonly", "abstract")),
    "optional_parameter": frozenset(("?",)),
    "variable_declarator": frozenset(("!",)),
    "non_null_expression": frozenset(("!",)),
}


def blank_types(root: tree_sitter.Node, blanks: Blanks) -> None:
    """Takes all types away. Raises `Problem` for what is not understood or not supported."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            raise _not_understood(node, blanks)
        if node.type in _REFUSED:
            raise blanks.problem(node, _REFUSED[node.type])
        if not _vanishes(node, blanks):
            _trim(node, blanks)
            waiting.extend(reversed(node.children))


def _not_understood(node: tree_sitter.Node, blanks: Blanks) -> Problem:
    if node.is_missing:
        return blanks.problem(node, f"Syntax error: `{node.type}` is missing here")
    text = blanks.slice(node.start_byte, min(node.end_byte, node.start_byte + 40)).decode("utf-8", "replace")
    return blanks.problem(node, f"Syntax error near `{text.splitlines()[0] if text else ''}`")


def _vanishes(node: tree_sitter.Node, blanks: Blanks) -> bool:
    if node.type in _TYPES:
        _blank_type(node, blanks)
    elif _is_type_statement(node):
        blanks.statement(node)
    else:
        return False
    if node.has_error:
        raise _first_error(node, blanks)
    return True


def _is_type_statement(node: tree_sitter.Node) -> bool:
    kind = node.type
    if kind == "export_statement":
        return any(child.type == "type" or child.type in _STATEMENTS for child in node.children)
    if kind == "import_statement":
        return any(child.type == "type" for child in node.children)
    if kind == "public_field_definition":
        return any(child.type in ("declare", "abstract") for child in node.children)
    return kind in _STATEMENTS or (kind in _MEMBERS and node.parent is not None and node.parent.type == "class_body")


def _first_error(node: tree_sitter.Node, blanks: Blanks) -> Problem:
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if found.is_error or found.is_missing:
            return _not_understood(found, blanks)
        waiting.extend(reversed(found.children))
    return _not_understood(node, blanks)


def _trim(node: tree_sitter.Node, blanks: Blanks) -> None:
    """Takes the TypeScript part of a node that stays."""
    kind = node.type
    if kind in ("as_expression", "satisfies_expression"):
        keyword = next(child for child in node.children if child.type in ("as", "satisfies"))
        blanks.blank_range(keyword.start_byte, node.end_byte)
        _keep_apart(node.end_byte, keyword.start_byte, blanks)
    elif kind in _PARAMETERS:
        _trim_parameter(node, blanks)
    modifiers = _MODIFIERS.get(kind)
    if modifiers:
        for child in node.children:
            if child.type in modifiers:
                blanks.blank(child)
    if kind == "public_field_definition":
        _keep_field_apart(node, blanks)


def _trim_parameter(node: tree_sitter.Node, blanks: Blanks) -> None:
    if any(child.type in ("accessibility_modifier", "override_modifier", "readonly") for child in node.children):
        raise blanks.problem(
            node, "Parameter properties are not supported in code steps: declare the field and assign it"
        )
    pattern = node.child_by_field_name("pattern")
    if pattern is not None and pattern.type == "this":
        following = node.next_sibling
        blanks.blank(node)
        if following is not None and following.type == ",":
            blanks.blank(following)


def _blank_type(node: tree_sitter.Node, blanks: Blanks) -> None:
    parent = node.parent
    several_lines = b"\n" in blanks.slice(node.start_byte, node.end_byte)
    if several_lines and parent is not None and parent.type == "arrow_function":
        if node.type == "type_parameters":
            _open_early(node, parent, blanks)
        else:
            _close_late(node, parent, blanks)
        return
    blanks.blank(node)


def _close_late(node: tree_sitter.Node, arrow: tree_sitter.Node, blanks: Blanks) -> None:
    """`(a): {⏎ b: string⏎} => a`: no line end may stand before `=>`, so `)` goes where the type ended."""
    parameters = arrow.child_by_field_name("parameters")
    if parameters is None:
        blanks.blank(node)
        return
    blanks.blank_range(parameters.end_byte - 1, node.end_byte - 1)
    blanks.replace(node.end_byte - 1, node.end_byte, ")")


def _open_early(node: tree_sitter.Node, arrow: tree_sitter.Node, blanks: Blanks) -> None:
    """`async <⏎T⏎>(a) => a`: no line end may stand behind `async`, so `(` goes where the type parameters began."""
    parameters = arrow.child_by_field_name("parameters")
    blanks.replace(node.start_byte, node.start_byte + 1, "(")
    blanks.blank_range(node.start_byte + 1, node.end_byte if parameters is None else parameters.start_byte + 1)


def _keep_apart(end: int, at: int, blanks: Blanks) -> None:
    """`a as B⏎(c)` are two statements, `a⏎(c)` is a call."""
    rest = blanks.slice(end, end + 200).lstrip(b" \t")
    if rest[:1] in (b"\n", b"\r") and rest.lstrip()[:1] in (b"(", b"[", b"`", b"+", b"-", b"/"):
        blanks.replace(at, at + 1, ";")


def _keep_field_apart(node: tree_sitter.Node, blanks: Blanks) -> None:
    """`a = 1⏎private ['b'] = 2`: without the modifier the second line would go on the first."""
    first = node.children[0]
    name = node.child_by_field_name("name")
    gone = first.type in ("accessibility_modifier", "override_modifier", "readonly")
    if gone and name is not None and name.type == "computed_property_name":
        blanks.replace(first.start_byte, first.start_byte + 1, ";")
