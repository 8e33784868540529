"""What an operator can set for webhooks: limits, time-outs, how long things are kept.

Decides: names, defaults and bounds. Leaves: the size of a body to the gateway, which reads it.
"""

from pydantic import Field

from chassis.settings import ServiceSettings

KIB = 1024


class WebhooksSettings(ServiceSettings):
    """Settings of the webhooks service, each as `MILLRACE_<NAME>`."""

    webhook_reply_to: str = ""
    """gRPC address at which executors reach this replica with answers; empty: the address it listens on."""
    webhook_json_depth: int = Field(200, ge=16, le=500)
    """Deepest nesting of a JSON body; deeper is refused with 400. Bounded so that every later reader can parse it."""
    webhook_form_fields: int = Field(1000, ge=1)
    """Most fields of a form or a query string, and of a multipart body."""
    webhook_form_files: int = Field(20, ge=0)
    """Most files of one multipart body."""
    webhook_sync_timeout_s: float = Field(30.0, gt=0)
    """How long `…/sync` waits for the run's answer before it gives 408; the run goes on."""
    webhook_poll_after_s: float = Field(0.5, gt=0)
    """After this long without a word, a waiting request is asked for at the executors (long poll)."""
    webhook_inline_bytes: int = Field(128 * KIB, ge=KIB, le=200 * KIB)
    """A packed payload over this is stored as a file first and travels by reference."""
    webhook_batch_bytes: int = Field(240 * KIB, ge=KIB, le=256 * KIB)
    """Most bytes of one record on the topic `executions`; records are 256 KiB at most."""
    webhook_waiting_bytes: int = Field(64 * KIB * KIB, ge=KIB)
    """Most bytes of accepted bodies that wait for the log; beyond it webhooks answer 503."""
    webhook_publish_timeout_s: float = Field(10.0, gt=0)
    """How long the log may take before the waiting senders are told 503."""
    webhook_idempotency_days: int = Field(7, ge=1)
    """How long a sender's duplicate key is remembered."""
    webhook_mend_s: float = Field(60.0, gt=0)
    """How often the list of endpoints is compared with flows', and connection secrets are read anew."""
    webhook_delivery_days: int = Field(7, ge=1)
    """How long refused and simulated deliveries can be looked at."""
