"""Webhooks: takes events in and holds senders that wait. Owns idempotency and trigger_event; publishes `executions`;
reads `flow-changes`; asks flows for endpoints, auth for secrets, files to keep large bodies, executor for late answers.

Decides: what is opened, and who gets what. Leaves: each of them to its own module.
"""

from millrace.auth.v1.connection_pb2_grpc import ConnectionServiceStub
from millrace.executor.v1.run_pb2_grpc import RunServiceStub
from millrace.files.v1.file_pb2_grpc import FileServiceStub
from millrace.flows.v1.draft_pb2_grpc import DraftServiceStub
from millrace.flows.v1.version_pb2_grpc import VersionServiceStub
from millrace.webhooks.v1.ingest_pb2_grpc import add_IngestServiceServicer_to_server

from chassis.backings import open_database, open_topics
from chassis.lifecycle import Chassis, Running
from services.webhooks.answers import Answers
from services.webhooks.connection_secrets import ConnectionSecrets
from services.webhooks.deliveries import Deliveries
from services.webhooks.delivery_store import DeliveryStore
from services.webhooks.endpoint_feed import EndpointFeed
from services.webhooks.endpoints import Endpoints
from services.webhooks.idempotency import Duplicates
from services.webhooks.idempotency_store import IdempotencyStore
from services.webhooks.ingest import Ingest
from services.webhooks.parts import Parts
from services.webhooks.publisher import Publisher
from services.webhooks.reading import Reader
from services.webhooks.rpc import IngestRpc
from services.webhooks.settings import WebhooksSettings
from services.webhooks.simulate import Simulations
from services.webhooks.uploads import Uploads


async def build(settings: WebhooksSettings, chassis: Chassis) -> Running:
    """Open the database and the log, and wire the hot path to its servicer."""
    database = await open_database(chassis)
    log = await open_topics(chassis, database)
    clock = chassis.clock
    versions = VersionServiceStub(chassis.channel("flows"))
    uploads = Uploads(FileServiceStub(chassis.channel("files")))
    endpoints = Endpoints(versions, ConnectionSecrets(ConnectionServiceStub(chassis.channel("auth"))), clock)
    feed = EndpointFeed(log, versions, endpoints, mend_s=settings.webhook_mend_s)
    answers = Answers(RunServiceStub(chassis.channel("executor")), clock, settings)
    publisher = Publisher(log, answers, settings)
    duplicates = Duplicates(IdempotencyStore(database), publisher, answers, clock, settings)
    deliveries = Deliveries(DeliveryStore(database), clock, settings)
    reader = Reader(settings, uploads)
    drafts = DraftServiceStub(chassis.channel("flows"))
    accepted = Parts(endpoints, reader, uploads, publisher, duplicates, answers, deliveries, clock)
    simulations = Simulations(versions, drafts, accepted, settings)
    ingest = Ingest(
        accepted, simulations, settings, reply_to=settings.webhook_reply_to or settings.listen_address("webhooks")
    )
    return Running(
        servicers=[(add_IngestServiceServicer_to_server, IngestRpc(ingest, answers, chassis.stopping))],
        loops=[
            feed.follow,
            feed.apply_changes,
            feed.mend,
            publisher.run,
            duplicates.run,
            duplicates.mark,
            duplicates.trim,
            answers.sweep,
            answers.ask,
            deliveries.write,
            deliveries.trim,
        ],
    )
