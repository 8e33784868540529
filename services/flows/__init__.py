"""Flows: drafts and their edits, published versions, and how a version becomes live."""
