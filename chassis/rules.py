"""Checks requests against the rules that stand beside their fields in the .proto (`millrace.options.v1.rules`).

Decides: what each rule means, the sentence of each fault, how a field inside a message is named (`filter.ids[2]`).
Leaves: rules that need more than the message (does it exist, may the caller) to the domain; streams to their servicers.
Holds: a fault never repeats the value: it may be a password.
A message type is compiled once, into one list of checks; types without rules anywhere cost nothing a call.
"""

import re
from collections.abc import Callable, Iterable

import re2  # type: ignore[import-untyped]  # google-re2 ships no types
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from millrace.options.v1 import options_pb2

from chassis.errors import Fault, Invalid

ValueCheck = Callable[[object], str | None]
"""Takes a value; answers what is wrong with it, None when nothing is."""
FieldCheck = Callable[[Message, str, list[Fault]], None]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_compiled: dict[str, "MessageRules"] = {}


class MessageRules:
    """The compiled rules of one message type."""

    def __init__(self) -> None:
        self.checks: list[FieldCheck] = []

    def collect(self, message: Message, prefix: str, faults: list[Fault]) -> None:
        """Adds the faults of a message, its fields named behind `prefix`."""
        for check in self.checks:
            check(message, prefix, faults)

    def enforce(self, message: Message) -> None:
        """Raises: Invalid REQUEST_INVALID with all faults of a message."""
        faults: list[Fault] = []
        for check in self.checks:
            check(message, "", faults)
        if faults:
            raise invalid(faults)


def invalid(faults: Iterable[Fault]) -> Invalid:
    """The error for a request with these faults."""
    faults = list(faults)
    named = "; ".join(f"{fault.field} {fault.message}" for fault in faults[:3])
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return Invalid("REQUEST_INVALID", f"The request is not valid: {named}{more}.", faults=faults)


def rules_of(descriptor: Descriptor) -> MessageRules | None:
    """The rules of a message type and of the messages in it; None when there are none."""
    return _compile(descriptor) if _has_rules(descriptor, set()) else None


def _has_rules(descriptor: Descriptor, seen: set[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    return any(
        field.GetOptions().HasExtension(options_pb2.rules)
        or (field.message_type is not None and _has_rules(field.message_type, seen))
        for field in descriptor.fields
    )


def _compile(descriptor: Descriptor) -> MessageRules:
    known = _compiled.get(descriptor.full_name)
    if known is not None:
        return known
    rules = _compiled[descriptor.full_name] = MessageRules()  # known before its fields are: a type may contain itself
    for field in descriptor.fields:
        own = field.GetOptions().Extensions[options_pb2.rules]
        nested = None
        if field.message_type is not None and _has_rules(field.message_type, set()):
            nested = _compile(field.message_type)
        rules.checks.extend(_field_checks(field, own, nested))
    return rules


def _field_checks(
    field: FieldDescriptor, rules: options_pb2.FieldRules, nested: MessageRules | None
) -> Iterable[FieldCheck]:
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            nested = None  # a map's values are looked at by whoever reads them; its size is bounded here
        value_checks = [] if field.message_type is not None else list(_value_checks(field, rules))
        yield from _repeated_checks(field.name, rules, value_checks, nested)
    elif field.message_type is not None:
        if rules.required:
            yield _required_presence(field.name)
        if nested is not None:
            yield _nested_check(field.name, nested)
    else:
        checks = list(_value_checks(field, rules))
        if field.has_presence:
            if rules.required:
                yield _required_presence(field.name)
            yield from (_optional_check(field.name, check) for check in checks)
        else:
            yield from (_plain_check(field.name, check) for check in checks)


def _plain_check(name: str, check: ValueCheck) -> FieldCheck:
    def plain(message: Message, prefix: str, faults: list[Fault]) -> None:
        wrong = check(getattr(message, name))
        if wrong is not None:
            faults.append(Fault(field=prefix + name, message=wrong))

    return plain


def _optional_check(name: str, check: ValueCheck) -> FieldCheck:
    plain = _plain_check(name, check)

    def optional(message: Message, prefix: str, faults: list[Fault]) -> None:
        if message.HasField(name):
            plain(message, prefix, faults)

    return optional


def _required_presence(name: str) -> FieldCheck:
    def required(message: Message, prefix: str, faults: list[Fault]) -> None:
        if not message.HasField(name):
            faults.append(Fault(field=prefix + name, message="is required"))

    return required


def _nested_check(name: str, nested: MessageRules) -> FieldCheck:
    def inside(message: Message, prefix: str, faults: list[Fault]) -> None:
        if message.HasField(name):
            nested.collect(getattr(message, name), f"{prefix}{name}.", faults)

    return inside


def _repeated_checks(
    name: str, rules: options_pb2.FieldRules, value_checks: list[ValueCheck], nested: MessageRules | None
) -> Iterable[FieldCheck]:
    fewest = max(rules.min_items, 1 if rules.required else 0)
    if fewest or rules.max_items:
        yield _size_check(name, fewest, rules.max_items)
    if value_checks:
        yield _each_value_check(name, value_checks, rules.max_items or None)
    if nested is not None:
        yield _each_message_check(name, nested, rules.max_items or None)


def _size_check(name: str, fewest: int, most: int) -> FieldCheck:
    def size(message: Message, prefix: str, faults: list[Fault]) -> None:
        count = len(getattr(message, name))
        if count < fewest:
            faults.append(Fault(field=prefix + name, message=f"needs at least {fewest} items, has {count}"))
        elif most and count > most:
            faults.append(Fault(field=prefix + name, message=f"takes at most {most} items, has {count}"))

    return size


def _each_value_check(name: str, checks: list[ValueCheck], most: int | None) -> FieldCheck:
    def values(message: Message, prefix: str, faults: list[Fault]) -> None:
        for index, value in enumerate(getattr(message, name)[:most]):
            for check in checks:
                wrong = check(value)
                if wrong is not None:
                    faults.append(Fault(field=f"{prefix}{name}[{index}]", message=wrong))

    return values


def _each_message_check(name: str, nested: MessageRules, most: int | None) -> FieldCheck:
    def messages(message: Message, prefix: str, faults: list[Fault]) -> None:
        for index, item in enumerate(getattr(message, name)[:most]):
            nested.collect(item, f"{prefix}{name}[{index}].", faults)

    return messages


def _value_checks(field: FieldDescriptor, rules: options_pb2.FieldRules) -> Iterable[ValueCheck]:
    if field.type in {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}:
        yield from _text_checks(field, rules)
    elif field.enum_type is not None:
        if rules.required:
            yield _enum_check(frozenset(field.enum_type.values_by_number))
    elif rules.HasField("at_least") or rules.HasField("at_most"):
        yield _range_check(
            rules.at_least if rules.HasField("at_least") else None, rules.at_most if rules.HasField("at_most") else None
        )


def _text_checks(field: FieldDescriptor, rules: options_pb2.FieldRules) -> Iterable[ValueCheck]:
    if rules.required and not field.is_repeated:
        yield lambda value: None if value else "is required"
    if rules.min_length or rules.max_length:
        yield _length_check(rules.min_length, rules.max_length)
    if rules.max_bytes:
        yield _bytes_check(rules.max_bytes)
    if rules.uuid:
        yield lambda value: None if _UUID.fullmatch(str(value)) else "must be a UUID in lower case with hyphens"
    if rules.pattern:
        yield _pattern_check(rules.pattern, may_be_empty=not rules.min_length)


def _length_check(fewest: int, most: int) -> ValueCheck:
    def length(value: object) -> str | None:
        count = len(value)  # type: ignore[arg-type]  # compiled for text fields alone
        if count < fewest:
            if fewest == 1:
                return "must not be empty"
            return f"must be at least {fewest} characters long, is {count}"
        if most and count > most:
            return f"must be at most {most} characters long, is {count}"
        return None

    return length


def _bytes_check(most: int) -> ValueCheck:
    def size(value: object) -> str | None:
        count = len(value.encode()) if isinstance(value, str) else len(value)  # type: ignore[arg-type]  # text or bytes
        return f"must be at most {most} bytes, is {count}" if count > most else None

    return size


def _pattern_check(pattern: str, *, may_be_empty: bool) -> ValueCheck:
    search = re2.compile(pattern).search

    def matches(value: object) -> str | None:
        if (not value and may_be_empty) or search(value):
            return None
        return f"must match {pattern}"

    return matches


def _enum_check(known: frozenset[int]) -> ValueCheck:
    def chosen(value: object) -> str | None:
        if not value:
            return "is required"
        return None if value in known else "is not a known value"

    return chosen


def _range_check(least: int | None, most: int | None) -> ValueCheck:
    def in_range(value: object) -> str | None:
        if least is not None and value < least:  # type: ignore[operator]  # compiled for number fields alone
            return f"must be at least {least}, is {value}"
        if most is not None and value > most:  # type: ignore[operator]  # as above
            return f"must be at most {most}, is {value}"
        return None

    return in_range
