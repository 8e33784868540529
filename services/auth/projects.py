"""Projects: the border of all data, and who is inside.

Decides: that a new person gets a project of their own, what it is called, and the order of a person's projects (oldest
first; the first is the one that counts when a request names none).
Leaves: what a member may do to the gateway, which turns a token into permissions.
"""

from datetime import datetime
from uuid import UUID

import msgspec

from chassis.database import Database, Pooled
from chassis.ids import new_id

OWNER = "owner"

INSERT_PROJECT = """WITH made AS (INSERT INTO auth.project (id, name, created_at) VALUES ($1, $2, $3))
    INSERT INTO auth.project_member (project_id, user_id, role, created_at) VALUES ($1, $4, $5, $3)"""
# Index project_member_by_user (user_id, project_id). A person is in few projects; 500 is a bound, not a page.
PROJECTS_OF_USER = """SELECT project.id, project.name FROM auth.project_member AS member
    JOIN auth.project ON project.id = member.project_id
    WHERE member.user_id = $1 ORDER BY member.project_id LIMIT 500"""


class Project(msgspec.Struct, frozen=True):
    """A project, as its members see it."""

    id: UUID
    name: str


async def create_for_new_user(connection: Pooled, user_id: UUID, user_name: str, at: datetime) -> Project:
    """The project that a person starts with; they own it."""
    project = Project(new_id(), f"{user_name}'s project")
    await connection.execute(INSERT_PROJECT, project.id, project.name, at, user_id, OWNER)
    return project


async def of_user(database: Database | Pooled, user_id: UUID) -> list[Project]:
    """The projects that a person is a member of, oldest first."""
    return [Project(row["id"], row["name"]) for row in await database.fetch(PROJECTS_OF_USER, user_id)]
