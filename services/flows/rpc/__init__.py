"""The servicers of flows: message in, one domain call, message out."""
