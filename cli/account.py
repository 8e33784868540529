"""`millrace sign-up`, `sign-in`, `sign-out`, `whoami`.

Decides: what is asked for on the terminal, never on the command line. Leaves: keeping tokens to session.py.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.printing import AsJson, Url, as_json, explained, tell

Email = Annotated[str, typer.Argument(help="Your address.")]


@explained
def sign_up(
    email: Email,
    name: Annotated[str, typer.Option(help="How the product addresses you; else the address's first part.")] = "",
    url: Url = "",
    json: AsJson = False,
) -> None:
    """Create an account with a project, and sign in. The password is asked for, or read from stdin."""
    from cli.api import Api

    with Api(url) as api:
        body = {"email": email, "password": secret("Password", again=True), "name": name or email.partition("@")[0]}
        answer = api.open("/api/v1/auth/sign-up", body)
        api.sign_in_with(email, answer.pop("tokens"))
        if json:
            as_json(answer)
        else:
            tell(f"Welcome, {answer['user']['name']}. You are signed in to {api.url}.")


@explained
def sign_in(email: Email, url: Url = "", json: AsJson = False) -> None:
    """Sign in. The password is asked for, or read from stdin."""
    from cli.api import Api

    with Api(url) as api:
        answer = api.open("/api/v1/auth/sign-in", {"email": email, "password": secret("Password")})
        api.sign_in_with(email, answer.pop("tokens"))
        if json:
            as_json(answer)
        else:
            tell(f"You are signed in to {api.url} as {answer['user']['email']}.")


@explained
def sign_out(url: Url = "") -> None:
    """Sign out, here and at the platform."""
    from cli.api import Api

    with Api(url) as api:
        api.sign_out()
    tell("You are signed out.")


@explained
def whoami(url: Url = "", json: AsJson = False) -> None:
    """Say who is signed in, and to which projects they belong."""
    from cli.api import Api

    with Api(url) as api:
        me = api.get("/api/v1/me")
        if json:
            as_json(me)
            return
        tell(f"{me['user']['name']} <{me['user']['email']}> at {api.url}")
        for project in me["projects"]:
            tell(f"  {project['id']}  {project['name']}")


def secret(what: str, *, again: bool = False) -> str:
    """A secret: asked for without showing it, or the whole of stdin without its last line break. Never an argument."""
    if sys.stdin.isatty():
        asked: str = typer.prompt(what, hide_input=True, confirmation_prompt=again, err=True)
        return asked
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")
