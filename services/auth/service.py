"""Auth: who people are and what they may enter; other systems' secrets.

Owns user, project, project_member, session, refresh_token, connection and signing_key. Calls no other service. Tells of
ended sessions through the cache. The encryption key lives here alone.

Decides: what is opened, and who gets what. Leaves: each of them to its own module.
"""

from datetime import UTC, datetime, timedelta

from millrace.auth.v1.account_pb2_grpc import add_AccountServiceServicer_to_server
from millrace.auth.v1.connection_pb2_grpc import add_ConnectionServiceServicer_to_server

from chassis.backings import open_database
from chassis.cache import open_cache
from chassis.lifecycle import Chassis, Running
from chassis.revocation import EndedSessions
from services.auth.accounts import Accounts
from services.auth.connections import Connections
from services.auth.encryption import load_keyring
from services.auth.passwords import Passwords
from services.auth.rpc import AccountRpc, ConnectionRpc
from services.auth.sessions import Sessions
from services.auth.settings import AuthSettings
from services.auth.signing_keys import load_signing_keys
from services.auth.tokens import AccessTokens


async def build(settings: AuthSettings, chassis: Chassis) -> Running:
    """Opens database, cache and keys, and wires the domain to its servicers."""
    keyring = load_keyring(settings.encryption_keys.get_secret_value(), settings.home, embedded=settings.embedded)
    database = await open_database(chassis)
    ended = EndedSessions(await chassis.open(open_cache(settings)))
    passwords = await chassis.open(Passwords(settings.auth_bcrypt_cost))
    keys = await load_signing_keys(database, keyring, datetime.fromtimestamp(chassis.clock.now_ms() / 1000, UTC))
    tokens = AccessTokens(keys.current, settings.auth_issuer, settings.auth_audience, settings.auth_access_ttl_s)
    sessions = Sessions(database, tokens, ended, chassis.clock, timedelta(seconds=settings.auth_session_ttl_s))
    accounts = Accounts(database, passwords, sessions)
    connections = Connections(database, keyring, chassis.clock)
    return Running(
        servicers=[
            (add_AccountServiceServicer_to_server, AccountRpc(accounts, sessions, keys.jwks)),
            (add_ConnectionServiceServicer_to_server, ConnectionRpc(connections)),
        ],
        loops=[sessions.forget_old],
    )
