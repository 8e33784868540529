"""Reads runs: lists, one run with its steps, answers, progress."""
