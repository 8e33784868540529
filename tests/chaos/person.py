"""Somebody who uses an installation over REST: signs up, keeps a secret, takes flows live, looks at runs."""

from __future__ import annotations

import secrets
from types import TracebackType
from typing import Any, Self

import httpx


class Person:
    """A new account with a project of its own; `async with Person(url) as person:` signs it up."""

    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=url, timeout=60)

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        body = {"email": f"{secrets.token_hex(6)}@example.com", "password": secrets.token_hex(10), "name": "Ada"}
        answer = await self._call("POST", "/api/v1/auth/sign-up", json=body)
        self.client.headers["authorization"] = f"Bearer {answer['tokens']['access_token']}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.__aexit__(kind, error, trace)

    async def keep(self, name: str, secret: str) -> None:
        """Keep a secret as a connection."""
        await self._call("POST", "/api/v1/connections", json={"name": name, "kind": "secret_text", "secret": secret})

    async def publish(self, document: str) -> str:
        """Import a flow and take it live; its id."""
        imported = await self._call(
            "POST", "/api/v1/flows/import", content=document.encode(), headers={"content-type": "application/yaml"}
        )
        assert imported["faults"] == [], imported["faults"]
        flow_id: str = imported["flow"]["id"]
        await self._call("POST", f"/api/v1/flows/{flow_id}/publish")
        return flow_id

    async def run(self, run_id: str) -> dict[str, Any]:
        """One run with its steps."""
        return await self._call("GET", f"/api/v1/runs/{run_id}")

    async def statuses(self) -> dict[str, str]:
        """Run → status, of all runs that the list shows, page by page."""
        found: dict[str, str] = {}
        token = ""
        while True:
            page = await self._call("GET", "/api/v1/runs", params={"page_size": 100, "page_token": token})
            found.update((run["id"], run["status"]) for run in page["runs"])
            token = page["next_page_token"]
            if not token:
                return found

    async def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        response = await self.client.request(method, path, **arguments)
        assert response.is_success, f"{method} {path} was answered {response.status_code}: {response.text}"
        answer: dict[str, Any] = response.json()
        return answer
