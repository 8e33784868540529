"""Files: bodies too large or too foreign for the log and the journal."""
