"""`python -m services.auth`: auth as a process of its own."""

from chassis.lifecycle import run_service
from services.auth.service import build
from services.auth.settings import AuthSettings

run_service(build, AuthSettings)
