"""Which permission each RPC needs, read from the descriptors, and whether a caller has it.

Decides: the meaning of PUBLIC, INTERNAL, SELF and the permissions of a project; that an RPC without permission keeps
the server from starting; that health and reflection are open to all who reach the port.
Leaves: giving permissions to people to auth; proving the caller to `identity`.
"""

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from millrace.options.v1 import options_pb2

from chassis.errors import Denied, StartRefused, Unauthenticated
from chassis.identity import Caller

PUBLIC = options_pb2.PERMISSION_PUBLIC
INTERNAL = options_pb2.PERMISSION_INTERNAL
SELF = options_pb2.PERMISSION_SELF
OF_NO_PROJECT = frozenset({options_pb2.PERMISSION_PIECE_READ})
"""What belongs to the installation and not to a project: services read it, too."""

EXEMPT_SERVICES = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})


def method_descriptor(path: str) -> MethodDescriptor:
    """The descriptor of `/package.Service/Method`. Raises: StartRefused when its generated code is not loaded."""
    try:
        return descriptor_pool.Default().FindMethodByName(path.strip("/").replace("/", "."))
    except KeyError:
        raise StartRefused(f"The RPC {path} has no descriptor. Generate the stubs again and import them.") from None


def needed_permission(path: str) -> int | None:
    """The permission's number that an RPC declares; None for the exempt. Raises: StartRefused when it declares none."""
    if path.strip("/").partition("/")[0] in EXEMPT_SERVICES:
        return None
    permission: int = method_descriptor(path).GetOptions().Extensions[options_pb2.permission]
    if permission == options_pb2.PERMISSION_UNSPECIFIED:
        raise StartRefused(
            f"The RPC {path} declares no permission. Add `option (millrace.options.v1.permission) = …;` in its .proto."
        )
    return permission


def admit(caller: Caller, needed: int) -> None:
    """Returns when a caller may make a call that needs a permission. Raises: Unauthenticated, Denied."""
    if needed > SELF and needed in caller.permissions and caller.project_id is not None:
        return
    if needed == PUBLIC:
        return
    if needed == INTERNAL:
        if caller.kind != "service":
            raise Denied("SERVICES_ONLY", "Only services of this installation may make this call.")
        return
    if caller.kind == "service" and needed in OF_NO_PROJECT:
        return
    if caller.kind == "anonymous":
        raise Unauthenticated("SIGN_IN_FIRST", "This call needs a signed-in caller. Sign in and send the access token.")
    if needed == SELF:
        if caller.kind != "user":
            raise Denied("PEOPLE_ONLY", "Only a signed-in person may make this call.")
        return
    if caller.project_id is None:
        raise Denied(
            "PROJECT_REQUIRED", "This call needs a project, and the caller is not in one. Choose a project first."
        )
    name = options_pb2.Permission.Name(needed).removeprefix("PERMISSION_")  # type: ignore[arg-type]  # a number off the wire
    raise Denied(
        "PERMISSION_MISSING",
        f"This call needs the permission {name} in the project. Ask someone who manages its members.",
        permission=name,
    )
