"""The catalogue of pieces.

Decides: the address. Leaves: the catalogue to the executor.
"""

from fastapi import APIRouter, Request, Response
from millrace.executor.v1 import piece_pb2

from chassis.identity import acting_as
from gateway.answers import json_answer
from gateway.parts import SignedIn, parts
from gateway.refusals import refusals
from gateway.schemas import pieces as schemas

router = APIRouter(prefix="/api/v1/pieces", tags=["pieces"])


@router.get("", summary="List pieces", response_model=schemas.PieceList, responses=refusals())
async def list_pieces(request: Request, caller: SignedIn) -> Response:
    """Every installed piece with its triggers and actions, by name."""
    with acting_as(caller):
        answer = await parts(request).stubs.pieces.ListPieces(piece_pb2.ListPiecesRequest())
    return json_answer(schemas.pieces_view(answer.pieces))
