"""Runs flows: takes events in, keeps the journal, carries out steps, recovers what was cut off."""
