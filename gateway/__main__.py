"""`python -m gateway`: the gateway as a process of its own."""

from chassis.lifecycle import run_service
from gateway.service import build
from gateway.settings import GatewaySettings

run_service(build, GatewaySettings)
