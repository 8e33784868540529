"""How lists are paged: a size, and a token that continues where the page before ended."""

from typing import Annotated

from fastapi import Query

PageSize = Annotated[int, Query(ge=0, le=200, description="How many at most; 0 means 50.")]
PageToken = Annotated[
    str, Query(max_length=512, description="`next_page_token` of the page before; leave it out for the first page.")
]
