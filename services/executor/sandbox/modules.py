"""From the author's module to the body of a function.

Decides: which `export` is the entry, that imports are refused, and how TypeScript becomes JavaScript (see
typescript.py).
Leaves: syntax errors of plain JavaScript to V8, which words them better; running to engine.py.
Everything that is taken away is replaced by blanks of the same shape, so lines and columns stay those of the author.

The parser (tree-sitter) is C code over untrusted text, therefore it runs inside the jail, behind the walls, like the
code itself. The result is kept with the unit, so a source is parsed once a jail.
"""

from __future__ import annotations

import re

import tree_sitter
from tree_sitter_javascript._binding import language as _javascript  # type: ignore[import-not-found]  # a C module
from tree_sitter_typescript._binding import language_typescript as _typescript  # type: ignore[import-not-found]  # ditto

from services.executor.sandbox.blanks import Blanks, Problem
from services.executor.sandbox.typescript import blank_types

_PARSERS = {
    "javascript": tree_sitter.Parser(tree_sitter.Language(_javascript())),
    "typescript": tree_sitter.Parser(tree_sitter.Language(_typescript())),
}
_DECLARATIONS = (
    "lexical_declaration",
    "variable_declaration",
    "function_declaration",
    "generator_function_declaration",
    "class_declaration",
    "abstract_class_declaration",
)
_EXPORT = re.compile(r"^export\s+(?=const|let|var|function|async|class)", re.MULTILINE)
_DEFAULT = "let $default ="  # as long as "export default", so columns stay


def function_body(language: str, source: str) -> str:
    """The source as text to put into a function, ending with `return <entry>`. Raises `Problem`."""
    text = source.encode("utf-8", "surrogatepass")
    root = _PARSERS[language].parse(text).root_node
    blanks = Blanks(text)
    if language == "typescript":
        blank_types(root, blanks)
    exports: dict[str, str] = {}
    for statement in root.children:
        if statement.type == "import_statement" and not blanks.covers(statement):
            raise blanks.problem(statement, "Imports are not available in code steps")
        if statement.type == "export_statement" and not blanks.covers(statement):
            _export(statement, blanks, exports)
    entry = exports.get("code") or exports.get("default")
    if entry is None:
        if root.has_error and language == "javascript":
            return _EXPORT.sub(lambda found: " " * len(found[0]), source)  # V8 will say what is wrong
        raise Problem("The source exports no function: write `export const code = async (inputs) => { … }`", 1, 1)
    return f"{blanks.result()}\n;return {entry};"


def _export(statement: tree_sitter.Node, blanks: Blanks, exports: dict[str, str]) -> None:
    tokens = {child.type: child for child in statement.children}
    if "from" in tokens or "*" in tokens or "source" in tokens:
        raise blanks.problem(statement, "Imports are not available in code steps")
    if "=" in tokens:
        raise blanks.problem(statement, "`export =` is not supported; write `export const code = …`")
    if "export_clause" in tokens:
        for specifier in tokens["export_clause"].named_children:
            names = [_text(child) for child in specifier.named_children]
            if names:
                exports[names[-1]] = names[0]
        blanks.statement(statement)
        return
    if "default" in tokens:
        _export_default(statement, tokens, blanks, exports)
        return
    declaration = next((child for child in statement.children if child.type in _DECLARATIONS), None)
    if declaration is None:
        return
    blanks.blank(tokens["export"])
    exports.update((name, name) for name in _declared(declaration))


def _export_default(
    statement: tree_sitter.Node, tokens: dict[str, tree_sitter.Node], blanks: Blanks, exports: dict[str, str]
) -> None:
    value = next((child for child in statement.named_children if child.type != "comment"), None)
    if value is None:
        return
    if value.type in _DECLARATIONS and _declared(value):
        blanks.blank(tokens["export"])
        blanks.blank(tokens["default"])
        exports["default"] = _declared(value)[0]
        return
    first, second = tokens["export"], tokens["default"]
    if second.end_byte - first.start_byte == len(_DEFAULT):
        blanks.replace(first.start_byte, second.end_byte, _DEFAULT)
    else:
        blanks.blank(first)
        blanks.replace(second.start_byte, second.end_byte, _DEFAULT)
    blanks.insert(value.end_byte, ";")
    exports["default"] = "$default"


def _declared(declaration: tree_sitter.Node) -> list[str]:
    named = declaration.child_by_field_name("name")
    if named is not None:
        return [_text(named)]
    names = (child.child_by_field_name("name") for child in declaration.named_children)
    return [_text(name) for name in names if name is not None and name.type == "identifier"]


def _text(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")
