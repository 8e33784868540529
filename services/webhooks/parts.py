"""What every accepted event may need on its way: wired once in service.py, handed to the ways in (ingest, simulate).

Decides: nothing. Leaves: all of it to the parts.
"""

from dataclasses import dataclass

from chassis.clock import Clock
from services.webhooks.answers import Answers
from services.webhooks.deliveries import Deliveries
from services.webhooks.endpoints import Endpoints
from services.webhooks.idempotency import Duplicates
from services.webhooks.publisher import Publisher
from services.webhooks.reading import Reader
from services.webhooks.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Parts:
    """What the hot path hands events to."""

    endpoints: Endpoints
    reader: Reader
    uploads: Uploads
    publisher: Publisher
    duplicates: Duplicates
    answers: Answers
    deliveries: Deliveries
    clock: Clock
