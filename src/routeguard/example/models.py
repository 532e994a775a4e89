"""What the example's endpoints take and give: strict going in, only declared fields coming out."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Title = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Amount = Annotated[float, Field(ge=0, le=1_000_000_000, allow_inf_nan=False)]


class Me(BaseModel):
    """Who is signed in."""

    id: str
    name: str
    email: str


class Data(BaseModel):
    """What any valid API key may read: whose call this was."""

    caller: str


class Report(BaseModel):
    """What staff may see."""

    users: int
    invoices: int
    total: float


class InvoiceIn(BaseModel):
    """What a caller decides about an invoice: never its id or its owner."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    title: Title
    amount: Amount


class Invoice(BaseModel):
    """An invoice as its owner sees it."""

    id: str
    title: str
    amount: float
