"""The state machine of one run: journal entries and events in, commands out. No I/O, no clock, no randomness."""
