"""The way in over HTTP: REST, webhooks, the live view. Read service.py first."""
