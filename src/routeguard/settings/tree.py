"""The tree of settings: what an operator decides, and what follows from it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from routeguard.core.address import X_FORWARDED_FOR, is_loopback
from routeguard.core.errors import ConfigError
from routeguard.core.features import distinct
from routeguard.core.secret import Secret  # noqa: TC001 - the annotations are read at run time
from routeguard.foundation.db.models import DatabaseSettings
from routeguard.foundation.mail.models import MailSettings
from routeguard.foundation.web.models import TlsSettings
from routeguard.identity.api_keys.models import ApiKeySettings
from routeguard.identity.oauth_server.models import ClientSettings
from routeguard.identity.passwords.models import PasswordSettings
from routeguard.identity.sessions.models import SessionSettings
from routeguard.identity.tokens.models import TokenSettings
from routeguard.identity.users.models import UserSettings
from routeguard.protection.traffic.models import ThrottleSettings, TrafficSettings
from routeguard.remote.models import RemoteSettings
from routeguard.settings.branches import branches, listed
from routeguard.settings.cookies import CookieSettings, cookie_scheme
from routeguard.settings.development_secret import kept_secret_findings
from routeguard.settings.findings import lost_cookies, malformed, named, unsafe, unsafe_identity, wrong_types
from routeguard.settings.reader import Reader, follows, read_toml, unreadable

if TYPE_CHECKING:
    from typing_extensions import Self

    from routeguard.core.cookies import CookieScheme
    from routeguard.core.feature import Feature

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator decides. `Settings(...)` takes values; `Settings.load()` reads them.

    The names double as environment variables: `issuer` is `ROUTEGUARD_ISSUER`, `sessions.idle` is
    `ROUTEGUARD_SESSIONS_IDLE`. Durations are written "15m" or "14d", sizes "2 KB", lists with commas.
    """

    issuer: str = "http://127.0.0.1:8000"
    """Our own origin as browsers see it. Links, cookies and tokens are made from it, never from a request."""
    root_path: str = ""
    """The path below which browsers find the application at that origin: empty, or such as `/api`."""
    secret: Secret | None = field(default=None, repr=False)
    """At least 32 random bytes; keys for cookies and tokens are derived from it. Generated and kept in development."""
    older_secrets: tuple[Secret, ...] = field(default=(), repr=False)
    """Secrets still accepted after a rotation, newest first."""
    environment: str = ""
    """`production`, `development` or `test`; when empty, decided by the issuer: http on loopback is development."""
    database_url: str = "sqlite:///routeguard.db"
    """`sqlite:///FILE` or `postgresql://...`, without a driver in the name."""
    ephemeral_url: str = "memory://"
    """Counters and locks: `memory://` for one process, `redis://` or `valkey://` for several."""
    trusted_origins: tuple[str, ...] = ()
    """Origins, beside the issuer's, whose pages may send requests with our cookies: exact, or `https://*-team.example.app`."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the identity routes and read their answers, credentials included (CORS)."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and CIDR ranges of the reverse proxies whose `trusted_proxy_header` is believed."""
    trusted_proxy_header: str = X_FORWARDED_FOR
    """The header field the proxies write: `X-Forwarded-For` or `Forwarded`. No other is ever read."""
    cookie_name: str = "routeguard"
    """What our cookies are called: the session's own, and `-csrf`, `-access` and `-refresh` after it. `{port}` in it is
    the issuer's port, for several applications on one host, where a browser gives every cookie to every port."""
    body_limit: int = 1024 * 1024
    """Bytes a request body may have unless a route's policy says otherwise."""
    unsafe_observe_in_production: bool = False
    """Permits `install(mode="observe")`, which refuses nothing, in production."""
    unsafe_memory_in_production: bool = False
    """Permits `memory://` beside PostgreSQL in production: for one process, and never two."""
    cookies: CookieSettings = field(default_factory=CookieSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    mail: MailSettings = field(default_factory=MailSettings)
    users: UserSettings = field(default_factory=UserSettings)
    passwords: PasswordSettings = field(default_factory=PasswordSettings)
    sessions: SessionSettings = field(default_factory=SessionSettings)
    tokens: TokenSettings = field(default_factory=TokenSettings)
    api_keys: ApiKeySettings = field(default_factory=ApiKeySettings)
    clients: ClientSettings = field(default_factory=ClientSettings)
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    traffic: TrafficSettings = field(default_factory=TrafficSettings)
    throttle: ThrottleSettings = field(default_factory=ThrottleSettings)
    tls: TlsSettings = field(default_factory=TlsSettings)
    features: tuple[str, ...] = ()
    """Features beside the built-in ones, as `package.module:name`: for the command line and every `Routeguard()`."""
    own: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    """The settings of features that are not built in, by the feature's name."""
    provenance: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Where each value that is not a default came from, by dotted name."""

    @classmethod
    def load(
        cls,
        *,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        beside: Sequence[Feature] = (),
        **explicit: Any,
    ) -> Self:
        """Read settings: arguments first, then the environment, then `[tool.routeguard]` of ./pyproject.toml.

        `beside` are features of the application that are not built in, beside those that the setting `features` lists.
        Raises ConfigError when a value cannot be read, a value cannot be used in any environment, or a name is not a
        setting: with all of these, and with what is unsafe in production. What is only that does not raise here.
        """
        settings, findings = cls.read(environ=environ, directory=directory, beside=beside, **explicit)
        if findings or _unusable(settings)[1]:
            raise ConfigError([*findings, *settings.findings(identity=False, cookies=False)])
        return settings

    @classmethod
    def read(
        cls,
        *,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        beside: Sequence[Feature] = (),
        **explicit: Any,
    ) -> tuple[Self, list[str]]:
        """Return what can be read, and a finding for everything else: to be shown, never to be run with.

        `beside` are features whose settings are read too, with those that the setting `features` lists.
        """
        toml, findings = read_toml(directory or Path.cwd())
        reader = Reader(os.environ if environ is None else environ, toml, explicit)
        values = reader.read(cls)
        found, unlisted = listed(values.get("features", ()))
        kinds, unfit = branches(distinct([*beside, *found]), cls)
        reader.refuse_unknown(cls, kinds)
        own = {name: reader.branch(kind, name) for name, kind in kinds.items()}
        findings += [*reader.findings, *unlisted, *unfit]
        return cls(**values, own=own, provenance=reader.provenance), findings

    def of(self, feature: Feature[Any]) -> Any:
        """Return the settings of a feature, built in or not; its defaults where none were given, None without any."""
        if feature.settings is None:
            return None
        own = self.own.get(feature.name, getattr(self, feature.name, None))
        return own if isinstance(own, feature.settings) else feature.settings()

    @property
    def production(self) -> bool:
        """Whether the strict rules of production apply."""
        if self.environment:
            return self.environment not in {"development", "test"}
        return not self.on_loopback

    @property
    def testing(self) -> bool:
        """Whether tests may say who is calling, without a credential."""
        return self.environment == "test"

    @property
    def on_loopback(self) -> bool:
        """Whether the issuer is plain http on this very machine, where browsers accept no `__Host-` cookie.

        Names below `.localhost` are this machine's too: browsers ask no resolver for them (RFC 6761 section 6.3).
        """
        return self.issuer_is_local and _split(self.issuer).scheme == "http"

    @property
    def issuer_is_local(self) -> bool:
        """Whether the issuer names this very machine, by whatever scheme."""
        host = _split(self.issuer).hostname or ""
        return is_loopback(host) or host.endswith(".localhost")

    @property
    def secure_cookies(self) -> bool:
        """Whether cookies are Secure and carry the prefix `__Host-`, or `__Secure-` with a domain."""
        return not self.on_loopback

    @property
    def cookie_base(self) -> str:
        """The name of our cookies, without the prefix that says who may set them."""
        parts = _split(self.issuer)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        return self.cookie_name.replace("{port}", str(port))

    @property
    def cookie_scheme(self) -> CookieScheme:
        """How our cookies are called and what they carry. Raises ValueError for settings with findings."""
        return cookie_scheme(self)

    @property
    def origins(self) -> tuple[str, ...]:
        """Every origin whose requests are our own. On loopback, both of its names are (they are one machine)."""
        parts = _split(self.issuer)
        own = [f"{parts.scheme}://{parts.netloc}"]
        if self.on_loopback:
            port = f":{parts.port}" if parts.port else ""
            own += [f"http://127.0.0.1{port}", f"http://localhost{port}"]
        return tuple(dict.fromkeys([*own, *self.trusted_origins]))

    def findings(self, *, identity: bool = True, cookies: bool = True) -> list[str]:
        """Return everything that is wrong or, in production, unsafe: the whole list at once.

        Without `identity` no database and no mail is used, and without `cookies` none of our cookies either: the
        application signs its users in itself. What only follows from another finding is left out.
        """
        sound, found = _unusable(self)
        unusable = named(found, self) | unreadable(self.provenance)
        # Whether this is production follows from these two: from a wrong one, nothing does.
        unknown = "environment" in unusable or ("issuer" in unusable and not sound.environment)
        if not unknown:
            found += [one for one in _unsafe(sound, identity=identity, cookies=cookies) if not follows(one, unusable)]
        return list(dict.fromkeys(found))


def _unusable(settings: S) -> tuple[S, list[str]]:
    """Return these settings with defaults for values of a wrong type, and what no environment can use."""
    wrong = wrong_types(settings)
    defaults = {item.name: _default(item) for item in fields(settings) if item.name in wrong}
    # What is of the wrong type is left at its default for the rest, so that the rest can be told too.
    sound = replace(settings, **defaults)
    return sound, [*chain.from_iterable(wrong.values()), *malformed(sound)]


def _unsafe(settings: Settings, *, identity: bool, cookies: bool) -> list[str]:
    """Return what these well-formed settings must not run with in their environment."""
    lost: list[str] = []
    if cookies and not settings.on_loopback and settings.environment in {"", "development"}:
        lost = lost_cookies(settings)
    if lost and not settings.environment:
        # Production only by this issuer: a trial on another device says nothing of production.
        return lost
    if settings.production:
        return [*unsafe(settings), *(unsafe_identity(settings) if identity else ())]
    return lost if settings.secret is not None else [*lost, *kept_secret_findings(Path.cwd())]


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _split(url: str) -> SplitResult:
    """Split a URL; other text has no parts, and is a finding."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
