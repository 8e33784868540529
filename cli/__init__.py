"""The `millrace` command: up, services, backups, and the API from a terminal."""
