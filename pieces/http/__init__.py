"""The piece that calls any HTTP API."""

from .request import RequestInput, piece, request

__all__ = ["RequestInput", "piece", "request"]
