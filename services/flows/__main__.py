"""`python -m services.flows` runs flows alone."""

from chassis.lifecycle import run_service
from services.flows.service import build
from services.flows.settings import FlowsSettings

if __name__ == "__main__":
    run_service(build, FlowsSettings)
