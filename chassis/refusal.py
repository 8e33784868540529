"""The refusal to start: apart from the other errors, which know gRPC, because the small supervisor raises it, too.

Decides: that not to start is said in one sentence. Leaves: the sentences to whoever refuses, the exit code to the
callers.
"""


class StartRefused(Exception):  # noqa: N818  # named by what happened, as all errors of the house
    """The process cannot start as it is configured. The message is a sentence for the operator, who needs no stack."""
