"""What the pages contribute to the identity service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from routeguard.core.feature import Feature
from routeguard.core.refusal import RefusalPages, SignInPage
from routeguard.identity.ui.refusals import BrowserRefusals
from routeguard.identity.ui.routes import routes
from routeguard.identity.ui.templates import FormTexts

if TYPE_CHECKING:
    from routeguard.core.setup import Setup


def set_up(setup: Setup) -> None:
    """Offer to draw refusals as pages."""
    services, own = setup.services, setup.deployment.passwords
    hint = (
        f"At least {own.minimum_length} characters; {own.advised_length} or more are better. "
        "A few unrelated words do well."
    )
    texts = services.add(FormTexts, FormTexts(hint))
    services.add(RefusalPages, BrowserRefusals(texts))
    services.add(SignInPage, SignInPage("/auth/sign-in"))


feature: Final = Feature(name="ui", requires=("sessions",), setup=set_up, routes=routes)
