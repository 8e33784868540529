"""Starts webhooks alone: `python -m services.webhooks`."""

from chassis.lifecycle import run_service
from services.webhooks.service import build
from services.webhooks.settings import WebhooksSettings

if __name__ == "__main__":
    run_service(build, WebhooksSettings)
