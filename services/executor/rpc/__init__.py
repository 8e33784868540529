"""The servicers of the executor: message in, one domain call, message out."""
