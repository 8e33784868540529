"""The flow language: the document, what makes it valid, how it is edited, what its expressions mean.

Pure: no I/O, no clock.
"""
