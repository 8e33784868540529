"""Webhooks: takes events in, makes them durable, and answers."""
