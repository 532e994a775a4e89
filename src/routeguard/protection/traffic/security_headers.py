"""What every response tells browsers: made once, added where the handler said nothing itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Final, Literal

from typing_extensions import override

from routeguard.core.errors import ConfigError
from routeguard.core.policy import BoundCheck, Check, Outcome, Policy, Stage
from routeguard.protection.traffic.site import site_of

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

Preset = Literal["api", "pages", "strict"]
Pairs = tuple[tuple[bytes, bytes], ...]

HSTS: Final = "max-age=63072000; includeSubDomains"
"""Two years (RFC 6797; ASVS v5.0.0-3.4.1). Only ever sent where the site is https."""

_EVERYWHERE: Final = {
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_PAGES_CSP: Final = (
    "default-src 'self'; script-src 'self'{nonce}; style-src 'self'{nonce}; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_STRICT_CSP: Final = (
    "default-src 'none'; script-src 'self'{nonce}; style-src 'self'{nonce}; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
PRESETS: Final[Mapping[str, Mapping[str, str]]] = {
    # Answers that are data: opened in a browser, one is a document that can do nothing.
    "api": {
        "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        **_EVERYWHERE,
    },
    "pages": {
        "content-security-policy": _PAGES_CSP,
        "referrer-policy": "strict-origin-when-cross-origin",
        **_EVERYWHERE,
    },
    "strict": {
        "content-security-policy": _STRICT_CSP,
        "referrer-policy": "no-referrer",
        "cross-origin-embedder-policy": "require-corp",
        **_EVERYWHERE,
    },
}
"""No X-XSS-Protection: the filter it steers is gone, and was itself a leak (attack HDR-03)."""

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+", re.ASCII)
_VALUE: Final = re.compile(r"[\x20-\x7e]+", re.ASCII)
_REMEMBERED: Final = 8
_CSP: Final = b"content-security-policy"


def security_headers(preset: Preset = "api", *, change: Mapping[str, str | None] | None = None) -> Policy:
    """Return the policy that adds a preset of security headers to the route's responses, errors included.

    ``"api"`` is for data, ``"pages"`` for HTML of this origin with nonces for inline code (see `csp_nonce`),
    ``"strict"`` for HTML that needs no more than the most. `change` replaces values by lower-case name or, with None,
    leaves one out; ``{nonce}`` in a policy stands where nonces go. What a handler sets itself is never doubled.
    """
    return Policy((SecurityHeaders(preset, tuple(sorted((change or {}).items()))),))


def header_bytes(preset: Preset = "api", *, https: bool, change: Mapping[str, str | None] | None = None) -> Pairs:
    """Return a preset as the (name, value) pairs of an ASGI response, HSTS only with `https`.

    Raises ConfigError for an unknown preset or a value that no header can hold.
    """
    if preset not in PRESETS:
        raise ConfigError(f"security headers {preset!r} are none of {', '.join(PRESETS)}")
    wanted: dict[str, str | None] = {**PRESETS[preset], "strict-transport-security": HSTS, **(change or {})}
    findings = [
        f"security header {name!r}: its name is not lower-case or its value holds what a header cannot"
        for name, value in wanted.items()
        if not _NAME.fullmatch(name) or (value is not None and not _VALUE.fullmatch(value))
    ]
    if findings:
        raise ConfigError(findings)
    return tuple(
        (name.encode("ascii"), value.replace("{nonce}", "").encode("ascii"))
        for name, value in wanted.items()
        if value is not None and (https or name != "strict-transport-security")
    )


def csp_nonce(exchange: Exchange) -> str:
    """Return this response's nonce for ``<script nonce=...>``, and state it in its Content-Security-Policy.

    128 random bits, new for each response and the same within one (CSP Level 3, section 7.1). The policy is that of
    the route's `security_headers`, else of the preset "pages". A handler that calls this sets no policy of its own.
    """
    known: str | None = exchange.facts.get(csp_nonce)
    if known is not None:
        return known
    nonce = exchange.facts[csp_nonce] = token_urlsafe(16)
    template: str = exchange.facts.get(SecurityHeaders, _PAGES_CSP)
    exchange.add_header(_CSP, template.replace("{nonce}", f" 'nonce-{nonce}'").encode("ascii"))
    return nonce


@dataclass(frozen=True, slots=True)
class SecurityHeaders(Check):
    """Responses carry the headers of `preset`, changed by `change`."""

    stage = Stage.RESPONSE  # First, so that refusals carry them.

    preset: Preset = "api"
    change: tuple[tuple[str, str | None], ...] = ()

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile to ready pairs. Raises ConfigError as `header_bytes` does."""
        change = dict(self.change)
        plain = header_bytes(self.preset, https=False, change=change)
        secure = header_bytes(self.preset, https=True, change=change)
        https = site_of(services).https
        template = change.get("content-security-policy", PRESETS[self.preset]["content-security-policy"])
        noncing = template if template is not None and "{nonce}" in template else None
        # The defaults of the application come first and are always the same tuple: merged once, found by identity.
        merged: dict[tuple[int, bool], tuple[Pairs, Pairs]] = {}

        async def described(exchange: Exchange) -> Outcome:
            defaults = exchange.defaults
            over_tls = https or exchange.request.scheme in {"https", "wss"}
            found = merged.get((id(defaults), over_tls))
            if found is None or found[0] is not defaults:
                found = defaults, _merge(secure if over_tls else plain, defaults)
                if len(merged) < _REMEMBERED:
                    merged[id(defaults), over_tls] = found
            exchange.defaults = found[1]
            if noncing is not None:
                exchange.facts[SecurityHeaders] = noncing
            return None

        return described

    @override
    def describe(self) -> str:
        return f"{self.preset} headers"


def _merge(ours: Pairs, others: Pairs) -> Pairs:
    taken = {name for name, _ in ours}
    return (*ours, *(pair for pair in others if pair[0] not in taken))
