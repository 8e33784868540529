"""`python -m services.executor` runs the executor alone."""

from chassis.lifecycle import run_service
from services.executor.service import build
from services.executor.settings import ExecutorSettings

if __name__ == "__main__":
    run_service(build, ExecutorSettings)
