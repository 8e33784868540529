"""Fixtures for every suite: the real backings, each started only when a test asks for it."""

pytest_plugins = [
    "tests.backings.kafka",
    "tests.backings.platform",
    "tests.backings.postgres",
    "tests.backings.redis",
    "tests.suites",
]
