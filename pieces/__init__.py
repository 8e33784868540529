"""What Millrace can talk to: one folder a piece, each against `millrace_sdk` alone."""
