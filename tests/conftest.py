"""Fixtures for every suite: the real backings, each started only when a test asks for it."""

pytest_plugins = [
    "tests.backings.kafka",
    "tests.backings.postgres",
    "tests.backings.redis",
]
