"""Carries out what the engine asks for: code in the jail, actions of pieces, waits."""
