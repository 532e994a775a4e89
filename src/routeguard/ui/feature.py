"""What the pages contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from routeguard.core.feature import Feature
from routeguard.core.refusal import RefusalPages
from routeguard.ui.refusals import BrowserRefusals
from routeguard.ui.routes import routes
from routeguard.ui.templates import FormTexts

if TYPE_CHECKING:
    from routeguard.core.services import Services


def register(services: Services, settings: Any) -> None:
    """Offer to draw refusals as pages."""
    own = settings.passwords
    hint = (
        f"At least {own.minimum_length} characters; {own.advised_length} or more are better. "
        "A few unrelated words do well."
    )
    texts = services.add(FormTexts, FormTexts(hint))
    services.add(RefusalPages, BrowserRefusals(texts))


feature: Final = Feature(name="ui", register=register, routes=routes)
