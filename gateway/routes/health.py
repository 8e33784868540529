"""How the gateway and the services behind it are, for probes and for Prometheus.

Decides: the three answers. Leaves: asking the services to readiness.py.
"""

from fastapi import APIRouter, Request, Response

from gateway.answers import json_answer
from gateway.parts import parts
from gateway.schemas import health as schemas

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Is the process alive", response_model=schemas.Alive)
async def healthz() -> Response:
    """Answers as long as this process does. It asks nobody: restarting it would not mend another service."""
    return json_answer({"status": "ok"})


@router.get(
    "/readyz",
    summary="Is everything ready",
    response_model=schemas.Ready,
    responses={503: {"description": "A service does not answer.", "model": schemas.Ready}},
)
async def readyz(request: Request) -> Response:
    """Asks each service; 503 until all of them serve."""
    services = await parts(request).readiness.answers()
    ready = all(answer == "serving" for answer in services.values())
    return json_answer({"status": "ready" if ready else "not_ready", "services": services}, 200 if ready else 503)


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus text format.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": "millrace_http_requests_total 1.0\n"}},
        }
    },
)
async def metrics(request: Request) -> Response:
    """Everything this process counts."""
    return Response(parts(request).metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
