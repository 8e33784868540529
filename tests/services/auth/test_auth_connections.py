"""Connections: a secret goes in, is resolved for runs of its project, and appears nowhere else."""

from uuid import UUID

import pytest
from millrace.auth.v1 import connection_pb2

from chassis.errors import Conflict, Denied, Invalid, MillraceError, NotFound
from chassis.identity import Caller, acting_as
from chassis.ids import new_text_id
from tests.services.auth.running import Auth, member

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET_TEXT = connection_pb2.CONNECTION_KIND_SECRET_TEXT


async def owner(auth: Auth) -> Caller:
    """Somebody with a real project."""
    return member((await auth.sign_up()).project.id)


async def create(auth: Auth, caller: Caller, name: str, secret: str = "s") -> connection_pb2.Connection:  # noqa: S107
    with acting_as(caller):
        answer = await auth.connections.CreateConnection(
            connection_pb2.CreateConnectionRequest(name=name, kind=SECRET_TEXT, secret=secret)
        )
    return answer.connection


async def resolve(auth: Auth, project_id: str | None, *names: str) -> list[connection_pb2.ResolvedConnection]:
    answer = await auth.as_service.ResolveConnections(
        connection_pb2.ResolveConnectionsRequest(project_id=project_id or "", names=names)
    )
    return list(answer.connections)


async def test_a_stored_secret_is_resolved_by_name_for_its_project_alone(auth: Auth) -> None:
    ours, theirs = await owner(auth), await owner(auth)
    await create(auth, ours, "billing", 'quote " and ünïcode \u0000')
    await create(auth, theirs, "billing", "theirs")
    (found,) = await resolve(auth, ours.project_id, "billing", "no_such_name")
    assert found.name == "billing"
    assert found.value == b'{"secret":"quote \\" and \xc3\xbcn\xc3\xafcode \\u0000"}'
    assert list(found.secrets) == ['quote " and ünïcode \u0000']
    assert await resolve(auth, new_text_id(), "billing") == []


async def test_what_is_stored_is_sealed_and_bound_to_its_row(auth: Auth) -> None:
    caller = await owner(auth)
    first = await create(auth, caller, "first", "the very secret text")
    second = await create(auth, caller, "second", "another")
    sealed = await auth.database.fetchval("SELECT sealed FROM auth.connection WHERE id = $1", UUID(first.id))
    assert b"very secret" not in sealed
    assert sealed[2:4] == b"k1"
    await auth.database.execute("UPDATE auth.connection SET sealed = $1 WHERE id = $2", sealed, UUID(second.id))
    with pytest.raises(Conflict) as refused:
        await resolve(auth, caller.project_id, "second")
    assert refused.value.reason == "CONNECTION_UNREADABLE"
    assert "very secret" not in str(refused.value)


async def test_only_services_resolve(auth: Auth) -> None:
    caller = await owner(auth)
    with acting_as(caller), pytest.raises(Denied):
        await resolve(auth, caller.project_id, "billing")


async def test_a_name_is_taken_once_a_project(auth: Auth) -> None:
    caller = await owner(auth)
    await create(auth, caller, "once")
    with pytest.raises(Conflict) as refused:
        await create(auth, caller, "once")
    assert refused.value.reason == "CONNECTION_NAME_TAKEN"


@pytest.mark.parametrize("name", ["", "1st", "with-dash", "x" * 65, "nul\0", "line\n", "__proto__"])
async def test_names_are_words_that_expressions_can_use(auth: Auth, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        await create(auth, member(), name)
    assert refused.value.faults[0].field == "name"


async def test_a_replaced_secret_is_the_one_that_is_resolved(auth: Auth) -> None:
    caller = await owner(auth)
    created = await create(auth, caller, "rotating", "old")
    auth.clock.advance(60)
    with acting_as(caller):
        answer = await auth.connections.ReplaceSecret(
            connection_pb2.ReplaceSecretRequest(connection_id=created.id, secret="new")
        )
    assert answer.connection.updated_at.seconds == created.updated_at.seconds + 60
    (found,) = await resolve(auth, caller.project_id, "rotating")
    assert found.value == b'{"secret":"new"}'


async def test_a_deleted_connection_is_gone(auth: Auth) -> None:
    caller = await owner(auth)
    created = await create(auth, caller, "short_lived")
    with acting_as(caller):
        await auth.connections.DeleteConnection(connection_pb2.DeleteConnectionRequest(connection_id=created.id))
        with pytest.raises(NotFound):
            await auth.connections.GetConnection(connection_pb2.GetConnectionRequest(connection_id=created.id))
    assert await resolve(auth, caller.project_id, "short_lived") == []


async def test_a_connection_of_another_project_does_not_exist(auth: Auth) -> None:
    created = await create(auth, await owner(auth), "theirs")
    one = {"connection_id": created.id}
    calls = [
        (auth.connections.GetConnection, connection_pb2.GetConnectionRequest(**one)),
        (auth.connections.ReplaceSecret, connection_pb2.ReplaceSecretRequest(**one, secret="stolen")),
        (auth.connections.DeleteConnection, connection_pb2.DeleteConnectionRequest(**one)),
    ]
    with acting_as(await owner(auth)):
        for call, request in calls:
            with pytest.raises(NotFound):
                await call(request)  # type: ignore[operator]  # each with its own request
    unchanged = "SELECT updated_at = created_at FROM auth.connection WHERE id = $1"
    assert await auth.database.fetchval(unchanged, UUID(created.id))


async def test_the_list_is_newest_first_in_pages_bound_to_the_project(auth: Auth) -> None:
    caller = await owner(auth)
    names = [f"c{number}" for number in range(5)]
    for name in names:
        await create(auth, caller, name)
    seen: list[str] = []
    token = ""
    with acting_as(caller):
        while True:
            page = await auth.connections.ListConnections(
                connection_pb2.ListConnectionsRequest(page_size=2, page_token=token)
            )
            assert len(page.connections) <= 2
            seen += [connection.name for connection in page.connections]
            token = page.next_page_token or token
            if not page.next_page_token:
                break
    assert seen == names[::-1]
    with acting_as(await owner(auth)), pytest.raises(Invalid) as refused:
        await auth.connections.ListConnections(connection_pb2.ListConnectionsRequest(page_token=token))
    assert refused.value.reason == "PAGE_TOKEN_INVALID"


async def test_every_rpc_of_connections_needs_its_permission(auth: Auth) -> None:
    stranger = Caller("user", new_text_id(), new_text_id(), frozenset())
    one = {"connection_id": new_text_id()}
    calls = [
        (
            auth.connections.CreateConnection,
            connection_pb2.CreateConnectionRequest(name="a", kind=SECRET_TEXT, secret="s"),
        ),
        (auth.connections.GetConnection, connection_pb2.GetConnectionRequest(**one)),
        (auth.connections.ListConnections, connection_pb2.ListConnectionsRequest()),
        (auth.connections.ReplaceSecret, connection_pb2.ReplaceSecretRequest(**one, secret="s")),
        (auth.connections.DeleteConnection, connection_pb2.DeleteConnectionRequest(**one)),
        (auth.connections.ResolveConnections, connection_pb2.ResolveConnectionsRequest(project_id=new_text_id())),
    ]
    with acting_as(stranger):
        for call, request in calls:
            with pytest.raises(MillraceError) as refused:
                await call(request)  # type: ignore[operator]  # each with its own request
            assert isinstance(refused.value, Denied)
