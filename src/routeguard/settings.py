"""Settings: a tree of small frozen objects, read from arguments, the environment and TOML, checked all at once."""

from __future__ import annotations

import contextlib
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from routeguard.api_keys.models import ApiKeySettings
from routeguard.core.address import parse_networks
from routeguard.core.errors import ConfigError
from routeguard.core.rate import parse_duration, parse_size
from routeguard.core.secret import MINIMUM_SECRET_BYTES, Secret, new_token
from routeguard.db.models import DatabaseSettings
from routeguard.mail.addresses import parse_sender
from routeguard.mail.models import MailSettings
from routeguard.oauth_server.models import ClientSettings
from routeguard.passwords.models import PasswordSettings
from routeguard.remote.models import RemoteSettings
from routeguard.sessions.models import SessionSettings
from routeguard.tokens.models import TokenSettings
from routeguard.traffic.models import ThrottleSettings, TrafficSettings
from routeguard.users.models import UserSettings
from routeguard.web.models import TlsSettings

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX: Final = "ROUTEGUARD_"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_WELL_KNOWN: Final = ("secret", "changeme", "change-me", "password", "development", "insecure", "default", "example")
_PLACEHOLDERS: Final = frozenset({"USER", "PASSWORD", "..."})
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_SIZES: Final = frozenset({"body_limit"})
_MOST_SECRET_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator decides. `Settings(...)` takes values; `Settings.load()` reads them.

    The names double as environment variables: `issuer` is `ROUTEGUARD_ISSUER`, `sessions.idle` is
    `ROUTEGUARD_SESSIONS_IDLE`. Durations are written "15m" or "14d", sizes "2 KB", lists with commas.
    """

    issuer: str = "http://127.0.0.1:8000"
    """Our own origin as browsers see it. Links, cookies and tokens are made from it, never from a request."""
    secret: Secret | None = field(default=None, repr=False)
    """At least 32 random bytes; keys for cookies and tokens are derived from it. Generated and kept in development."""
    older_secrets: tuple[Secret, ...] = field(default=(), repr=False)
    """Secrets still accepted after a rotation, newest first."""
    environment: str = ""
    """`production` or `development`; when empty, decided by the issuer: http on loopback is development."""
    database_url: str = "sqlite:///routeguard.db"
    """`sqlite:///FILE` or `postgresql://...`, without a driver in the name."""
    ephemeral_url: str = "memory://"
    """Counters and locks: `memory://` for one process, `redis://` or `valkey://` for several."""
    trusted_origins: tuple[str, ...] = ()
    """Origins, beside the issuer's, whose pages may send requests with our cookies. Compared exactly."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and CIDR ranges of the reverse proxies whose `Forwarded` or `X-Forwarded-For` is believed."""
    body_limit: int = 1024 * 1024
    """Bytes a request body may have unless a route's policy says otherwise."""
    unsafe_observe_in_production: bool = False
    """Permits `install(mode="observe")`, which refuses nothing, in production."""
    unsafe_memory_in_production: bool = False
    """Permits `memory://` beside PostgreSQL in production: for one process, and never two."""
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
    provenance: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Where each value that is not a default came from, by dotted name."""

    @classmethod
    def load(cls, *, environ: Mapping[str, str] | None = None, directory: Path | None = None, **explicit: Any) -> Self:
        """Read settings: arguments first, then the environment, then `[tool.routeguard]` of ./pyproject.toml.

        Raises ConfigError with every unreadable or unknown value.
        """
        settings, findings = cls.read(environ=environ, directory=directory, **explicit)
        if findings:
            raise ConfigError(findings)
        return settings

    @classmethod
    def read(
        cls, *, environ: Mapping[str, str] | None = None, directory: Path | None = None, **explicit: Any
    ) -> tuple[Self, list[str]]:
        """Return what can be read, and a finding for everything else: to be shown, never to be run with."""
        environ = os.environ if environ is None else environ
        reader = _Reader(environ, _toml(directory or Path.cwd()), explicit)
        values = reader.read(cls, "")
        reader.refuse_unknown()
        return cls(**values, provenance=reader.provenance), reader.findings

    @property
    def production(self) -> bool:
        """Whether the strict rules of production apply."""
        if self.environment:
            return self.environment != "development"
        return not self.on_loopback

    @property
    def on_loopback(self) -> bool:
        """Whether the issuer is plain http on this very machine, where browsers accept no `__Host-` cookie."""
        parts = urlsplit(self.issuer)
        return parts.scheme == "http" and parts.hostname in _LOOPBACK

    @property
    def secure_cookies(self) -> bool:
        """Whether cookies are Secure and carry the `__Host-` prefix."""
        return not self.on_loopback

    @property
    def origins(self) -> tuple[str, ...]:
        """Every origin whose requests are our own. On loopback, both of its names are (they are one machine)."""
        parts = urlsplit(self.issuer)
        own = [f"{parts.scheme}://{parts.netloc}"]
        if self.on_loopback:
            port = f":{parts.port}" if parts.port else ""
            own += [f"http://127.0.0.1{port}", f"http://localhost{port}"]
        return tuple(dict.fromkeys([*own, *self.trusted_origins]))

    def findings(self, *, identity: bool = True) -> list[str]:
        """Return everything that is wrong or, in production, unsafe: the whole list at once.

        Without `identity`, where the application signs its users in itself, there is no database and no mail to ask of.
        """
        if not self.production:
            return _malformed(self)
        return [*_malformed(self), *_unsafe(self), *(_unsafe_identity(self) if identity else ())]


def _malformed(settings: Settings) -> list[str]:
    found: list[str] = []
    parts = urlsplit(settings.issuer)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path not in {"", "/"} or parts.query:
        found.append(f"issuer {settings.issuer!r} must be an origin such as https://id.example.com")
    if settings.environment not in {"", "production", "development"}:
        found.append("environment must be 'production' or 'development'")
    for origin in settings.trusted_origins:
        parts = urlsplit(origin)
        # A list of origins, not of hosts: `http` and `https` of one host are two (attack CSRF-06).
        if f"{parts.scheme}://{parts.netloc}" != origin or parts.scheme not in {"http", "https"} or "*" in origin:
            found.append(f"trusted origin {origin!r} must be scheme://host[:port], written exactly as browsers send it")
    if parse_sender(settings.mail.sender) is None:
        found.append("mail.sender must be an address such as 'Example <no-reply@example.com>'")
    try:
        parse_networks(settings.trusted_proxies)
    except ConfigError as error:
        found += [f"trusted_proxies: {finding}" for finding in error.findings]
    for secret in (settings.secret, *settings.older_secrets):
        if secret is not None and len(secret) < MINIMUM_SECRET_BYTES:
            found.append(f"secret must have at least {MINIMUM_SECRET_BYTES} bytes")
    return found


def _unsafe(settings: Settings) -> list[str]:
    found: list[str] = []
    if settings.secret is None:
        found.append("secret is missing: set ROUTEGUARD_SECRET to 32 or more random bytes")
    else:
        text = settings.secret.reveal().decode("utf-8", "replace").lower()
        # Attack JWT-30, OPS-11: defaults and keyboard patterns are the first keys anybody tries.
        if len(set(text)) < 12 or any(text.startswith(word) or text.endswith(word) for word in _WELL_KNOWN):
            found.append("secret looks like a default or has too little variety")
    urls = {
        "database_url": settings.database_url,
        "ephemeral_url": settings.ephemeral_url,
        "mail.url": settings.mail.url,
    }
    found += [
        f"{name} holds a placeholder such as PASSWORD: put your own user and password there"
        for name, url in urls.items()
        if _has_placeholder(url)
    ]
    if settings.sessions.poll > settings.sessions.trust:
        found.append("sessions.poll is longer than sessions.trust: between two answers none would be trusted")
    if urlsplit(settings.issuer).scheme != "https":
        found.append("issuer must be https in production")
    return found


def _unsafe_identity(settings: Settings) -> list[str]:
    found: list[str] = []
    if settings.database_url in {"sqlite://", "sqlite:///:memory:"}:
        found.append("database_url keeps everything in memory: users would be lost at each restart")
    if (
        settings.database_url.startswith("postgresql") and settings.ephemeral_url.startswith("memory")
        and not settings.unsafe_memory_in_production
    ):  # fmt: skip
        # Two processes would take one signature each, and count each limit twice.
        found.append(
            "ephemeral_url keeps limits, claims and used signatures in the memory of one process: set "
            "ROUTEGUARD_EPHEMERAL_URL to valkey://... (or unsafe_memory_in_production, for one process and never two)"
        )
    if settings.mail.url.startswith("console"):
        found.append("mail.url prints mails with sign-in links on the console; set ROUTEGUARD_MAIL_URL to smtp://...")
    return found


def _has_placeholder(url: str) -> bool:
    """Whether the user or password in `url` was copied from an example (attack OPS-11)."""
    user_info, at, _ = url.partition("://")[2].rpartition("@")
    return bool(at) and not _PLACEHOLDERS.isdisjoint(user_info.split(":"))


def keep_development_secret(directory: Path) -> Secret:
    """Return the secret kept in `.routeguard/secret`, made on first use and readable by its owner only.

    Raises ConfigError for a file that anybody else could know or have put there.
    """
    path = directory / ".routeguard" / "secret"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.is_symlink() and not path.exists():
            _make_secret(path)
        return _kept_secret(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made or read: {error.strerror or error}") from None


def _make_secret(path: Path) -> None:
    """Write a new secret beside `path`, then link it there: whole or not at all, and the first of several stays."""
    handle, temporary = tempfile.mkstemp(prefix="secret-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(new_token())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()


def _kept_secret(path: Path) -> Secret:
    """Read a secret, if it is one: with an empty or a known one anybody makes cookies (attacks JWT-30, OPS-11)."""
    advice = f"delete {path} to have a new one made, or set {PREFIX}SECRET"
    if path.is_symlink():
        raise ConfigError(f"{path} is a link, perhaps to what others know: {advice}")
    # Asked of the very file that is read, which nobody can exchange in between.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        content = file.read(_MOST_SECRET_BYTES).strip()
    if os.name == "posix" and (status.st_mode & 0o077 or status.st_uid not in {0, os.geteuid()}):
        raise ConfigError(f"{path} can be read or written by others: chmod 600 it if nobody did, or {advice}")
    if len(content) < MINIMUM_SECRET_BYTES:
        raise ConfigError(f"{path} holds fewer than {MINIMUM_SECRET_BYTES} bytes: {advice}")
    return Secret(content)


def _toml(directory: Path) -> Mapping[str, Any]:
    path = directory / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        found: Mapping[str, Any] = tomllib.loads(path.read_text("utf-8")).get("tool", {}).get("routeguard", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return found


class _Reader:
    """Reads one tree of dataclasses from three sources and collects what it cannot read."""

    def __init__(self, environ: Mapping[str, str], toml: Mapping[str, Any], explicit: Mapping[str, Any]) -> None:
        self._environ = environ
        self._toml = toml
        self._explicit = explicit
        self._known: set[str] = set()
        self.findings: list[str] = []
        self.provenance: dict[str, str] = {}

    def read(self, kind: type[Any], prefix: str) -> dict[str, Any]:
        hints = get_type_hints(kind)
        values: dict[str, Any] = {}
        for item in fields(kind):
            if item.name == "provenance":
                continue
            name, hint = prefix + item.name, hints[item.name]
            if isinstance(hint, type) and is_dataclass(hint) and not self._given(name):
                values[item.name] = hint(**self.read(hint, name + "."))
                continue
            found = self._find(name, hint)
            if found is not MISSING:
                values[item.name] = found
        return values

    def refuse_unknown(self) -> None:
        """A misspelt variable would silently leave a default in place."""
        for variable in self._environ:
            if variable.startswith(PREFIX) and variable not in self._known:
                self.findings.append(f"{variable} is not a setting")
        for name in _dotted(self._toml):
            if PREFIX + name.replace(".", "_").upper() not in self._known:
                self.findings.append(f"[tool.routeguard] {name} is not a setting")
        for name in self._explicit:
            if PREFIX + name.upper() not in self._known:
                self.findings.append(f"{name} is not a setting")

    def _given(self, name: str) -> bool:
        if name in self._explicit:
            self._known.add(PREFIX + name.upper())
            return True
        return False

    def _find(self, name: str, hint: Any) -> Any:
        variable = PREFIX + name.replace(".", "_").upper()
        self._known.add(variable)
        if name in self._explicit:
            self.provenance[name] = "argument"
            return self._explicit[name]
        if variable in self._environ:
            self.provenance[name] = f"environment {variable}"
            return self._convert(variable, name, self._environ[variable], hint)
        node: Any = self._toml
        for part in name.split("."):
            node = node.get(part, MISSING) if isinstance(node, Mapping) else MISSING
        if node is MISSING:
            return MISSING
        self.provenance[name] = "pyproject.toml"
        return self._convert(f"[tool.routeguard] {name}", name, node, hint)

    def _convert(self, label: str, name: str, value: Any, hint: Any) -> Any:
        try:
            return _converted(name, value, hint)
        except (ConfigError, ValueError, TypeError) as error:
            # The value itself may be a secret, so only its name is shown.
            self.findings.append(f"{label}: {error if isinstance(error, ConfigError) else 'cannot be read'}")
            return MISSING


def _converted(name: str, value: Any, hint: Any) -> Any:
    options = [option for option in get_args(hint) if option is not type(None)]
    if get_origin(hint) is tuple:
        parts = value if isinstance(value, list) else [part.strip() for part in str(value).split(",") if part.strip()]
        return tuple(_converted(name, part, options[0]) for part in parts)
    if options and get_origin(hint) is not None and type(None) in get_args(hint):
        return _converted(name, value, options[0])
    if hint is bool:
        text = str(value).lower()
        if text not in _TRUE | _FALSE:
            raise ConfigError("must be true or false")
        return text in _TRUE
    if hint is timedelta:
        return parse_duration(value)
    if hint is int:
        return parse_size(value) if name.rpartition(".")[2] in _SIZES else int(value)
    if hint is Secret:
        return Secret(str(value))
    return str(value) if hint is str else hint(value)


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, value in tree.items():
        names += _dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [prefix + name]
    return names
