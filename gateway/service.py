"""The gateway: the way in over HTTP.

Owns no table and decides nothing that belongs to a domain: it authenticates, limits, checks the shape of a request,
calls one service and maps the answer. Serves REST, the live view and webhooks on one port.

Decides: what is opened, and who gets what. Leaves: each of them to its own module.
"""

from millrace.webhooks.v1.ingest_pb2_grpc import IngestServiceStub

from chassis.cache import open_cache
from chassis.lifecycle import Chassis, Running
from chassis.revocation import EndedSessions
from gateway.addresses import Senders
from gateway.app import build_app
from gateway.hook_paths import hook_paths
from gateway.hooks import Hooks, ingest_calls
from gateway.limits import AuthLimits
from gateway.parts import Parts
from gateway.readiness import Readiness, health_over
from gateway.server import HttpServer
from gateway.settings import GatewaySettings
from gateway.stubs import stubs_over
from gateway.tokens import AccessTokens


async def build(settings: GatewaySettings, chassis: Chassis) -> Running:
    """Takes the port, opens the cache, and wires routes to the services behind them."""
    server = await chassis.open(HttpServer(settings.host, settings.port, settings.drain_s))
    cache = await chassis.open(open_cache(settings))
    stubs = stubs_over(chassis.channel)
    parts = Parts(
        settings=settings,
        stubs=stubs,
        tokens=AccessTokens(
            stubs.accounts, EndedSessions(cache), chassis.clock, settings.auth_issuer, settings.auth_audience
        ),
        limits=AuthLimits(cache, settings),
        senders=Senders(settings.trusted_proxies),
        readiness=Readiness(settings.ready_services, health_over(chassis.channel), chassis.clock),
        clock=chassis.clock,
        metrics=chassis.metrics,
    )
    calls = await chassis.open(ingest_calls(IngestServiceStub(chassis.channel("webhooks"))))
    app = build_app(parts, Hooks(calls.call, parts.senders, settings), hook_paths())
    return Running(loops=[lambda: server.serve(app), parts.tokens.follow_ended])
