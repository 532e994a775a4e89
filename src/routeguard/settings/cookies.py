"""What may be set about the attributes of our cookies, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from routeguard.core.address import parse_address
from routeguard.core.cookies import CookieAttributes, CookieScheme, SameSite
from routeguard.core.errors import ConfigError
from routeguard.protection.traffic.registrable import is_public_suffix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from routeguard.settings.tree import Settings

_SAME_SITE: Final[Mapping[str, SameSite]] = {"lax": "Lax", "strict": "Strict", "none": "None"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieSettings:
    """Where browsers send our cookies: to this host and from this site alone, unless these say otherwise.

    `domain` opens them to every host at or below it. `same_site` is `lax`, `strict` or `none`; `none`, for a frame in
    another site's page, makes them Secure and, with `partitioned`, gives them a jar of their own for each such site
    (CHIPS). `unsafe_unpartitioned_in_production` permits `none` without it in production.
    """

    domain: str = ""
    same_site: str = "lax"
    partitioned: bool = True
    unsafe_unpartitioned_in_production: bool = False

    def __post_init__(self) -> None:
        """Refuse another word for `same_site`. Raises ConfigError."""
        if self.same_site not in tuple(_SAME_SITE):
            raise ConfigError(f"cookies.same_site {self.same_site!r} must be lax, strict or none")

    @property
    def cross_site(self) -> bool:
        """Whether browsers add the cookies to requests that pages of other sites make."""
        return self.same_site == "none"


def cookie_scheme(settings: Settings) -> CookieScheme:
    """Return how our cookies are called and what they carry. Raises ValueError for settings with findings."""
    own = settings.cookies
    # Browsers keep a Secure cookie from http on this machine too, but under no name with a prefix.
    attributes = CookieAttributes(
        secure=settings.secure_cookies or own.cross_site,
        domain=own.domain,
        same_site=_SAME_SITE[own.same_site],
        partitioned=own.cross_site and own.partitioned,
    )
    host = _host(settings)
    return CookieScheme(base=settings.cookie_base, prefixed=settings.secure_cookies, host=host, attributes=attributes)


def unusable_cookies(settings: Settings) -> list[str]:
    """Return what no browser would keep, or what would give the session to strangers, in any environment."""
    found = _domain_findings(settings.cookies.domain, _host(settings)) if settings.cookies.domain else []
    if settings.cookies.cross_site and settings.issuer.startswith("http://") and not settings.issuer_is_local:
        found.append("cookies.same_site 'none' needs an https issuer: browsers keep such cookies only with Secure")
    return found


def unsafe_cookies(settings: Settings) -> list[str]:
    """Return what the cookies must not be in production."""
    own, found = settings.cookies, list[str]()
    if own.domain and not settings.issuer.startswith("https://"):
        # Without __Secure- anybody in the network of one sub-domain on http plants the session (attack SES-34).
        found.append("cookies.domain needs an https issuer in production: on http any host of it can plant a session")
    if own.cross_site and not own.partitioned and not own.unsafe_unpartitioned_in_production:
        found.append(
            "cookies.partitioned is false with cookies.same_site 'none': the session would be one and the same in the "
            "pages of every site, which several browsers block; leave it true (or "
            "cookies.unsafe_unpartitioned_in_production, where one session has to be seen in frames and outside)"
        )
    return found


def cookie_warnings(settings: Settings) -> list[str]:
    """Return what the cookies' settings cost, for the log at each start: no weakening is silent (attack CK-14)."""
    own, found = settings.cookies, list[str]()
    if own.domain:
        found.append(
            f"cookies.domain {own.domain}: every host at or below it receives the session's cookies and can overwrite "
            "them, so each is inside the trust boundary: one that is taken over, or serves what others wrote, acts as "
            "your users"
        )
    if own.cross_site:
        found.append(
            "cookies.same_site none: browsers send the session's cookies from pages of every site. The CSRF check is "
            "what stands before unsafe methods; a GET that changes something, and a page of yours that may be "
            "framed, have nothing before them"
        )
        if not own.partitioned:
            found.append(
                "cookies.partitioned false: one session is used in the pages of every site, and sites that show your "
                "frame act in it together"
            )
    return found


def _domain_findings(domain: str, host: str) -> list[str]:
    """Say why browsers would drop cookies with this Domain (RFC 6265bis section 5.7), or hand them to strangers."""
    label = f"cookies.domain {domain!r}"
    if parse_address(domain.strip("[]")) is not None:
        return [f"{label} is an IP address, which has no sub-domains"]
    try:
        CookieAttributes(domain=domain)
    except ValueError:
        if "." not in domain.strip("."):
            return [f"{label} is a single label, to which browsers keep no cookie: name a domain of yours"]
        return [f"{label} must be a name such as example.com: lower case, in ASCII, without a dot at either end"]
    found = []
    if is_public_suffix(domain):
        found.append(f"{label} is a public suffix: anybody registers names below it, and browsers drop such a cookie")
    if host and host != domain and not host.endswith(f".{domain}"):
        found.append(f"{label} is neither the issuer's host {host} nor a domain above it, so browsers drop the cookies")
    return found


def _host(settings: Settings) -> str:
    """Return the host of the issuer; '' for an invalid one, which is a finding of its own."""
    try:
        return urlsplit(settings.issuer).hostname or ""
    except ValueError:
        return ""
