"""The routes of REST, one module a domain."""
