"""Every parser that reads bytes of strangers: how it is called, what it may raise, what must hold of its answer."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final

from routeguard.core.address import client_address, parse_address, parse_networks
from routeguard.core.cookies import find_cookie, format_cookie, parse_cookies
from routeguard.core.decision import Reply
from routeguard.core.errors import ConfigError, ProblemError
from routeguard.core.exchange import Exchange
from routeguard.core.policy import Policy
from routeguard.core.problem import Problem
from routeguard.core.rate import parse_duration, parse_rate, parse_size
from routeguard.core.redirect import safe_redirect
from routeguard.core.request import RequestView
from routeguard.core.services import Services
from routeguard.core.strict_json import JSONRefused, load_json
from routeguard.foundation.signatures.base import signature_base
from routeguard.foundation.signatures.digest import check_digest, content_digest
from routeguard.foundation.signatures.fields import MAXIMUM_COMPONENTS, read_signature
from routeguard.foundation.signatures.keys import is_secret, signing_key
from routeguard.foundation.signatures.models import Message, SignatureError
from routeguard.foundation.web.body import _parse_form, media_type_of
from routeguard.identity.sessions.envelope import EnvelopeCodec
from routeguard.identity.users.addresses import parse_email
from routeguard.protection.guard.log import escape
from routeguard.protection.guard.render import is_navigation, to_sign_in
from routeguard.protection.traffic.body_limit import body_limit
from routeguard.protection.traffic.clients import clients
from routeguard.protection.traffic.content_types import content_types, media_type
from routeguard.protection.traffic.cors import cors
from routeguard.protection.traffic.csrf import CsrfTokens, csrf
from routeguard.protection.traffic.hosts import hosts
from routeguard.protection.traffic.networks import networks
from routeguard.protection.traffic.origins import parse_origins, read_origins
from routeguard.protection.traffic.site import Site
from tests.fakes import deployment
from tests.fuzz import token_targets as tokens

CLIENT_SECRET: Final = "rgs_" + "0" * 43 + "3CRDwz"
SIGNATURE_WORDS: Final = (
    b'("@method" "@path")',
    b'"@method"',
    b'"x-a"',
    b" ",
    b"(",
    b")",
    b";",
    b"=",
    b'"',
    b";created=1",
    b';nonce="n"',
    b';keyid="k"',
    b";alg=",
    b"sig",
    b"sig=",
    b"*",
    b":",
    b"A" * 86,
    b"==",
    b"\n",
    b", ",
    b";req",
    b"@query-param",
    b"\\",
)
PROXIES: Final = parse_networks(["10.0.0.0/8"])


@dataclass(frozen=True)
class Target:
    """One parser. `read` raises AssertionError when the answer breaks a promise."""

    name: str
    read: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...] = ()
    seeds: tuple[bytes, ...] = ()
    words: tuple[bytes, ...] = field(default=())
    """What mutations are made of, beside random bytes."""


class FixedClock:
    """A clock that stands."""

    def time(self) -> float:
        return 1_800_000_000.0

    monotonic = time


SERVICES: Final = Services()
SERVICES.add(Site, Site(trusted_proxies=PROXIES))
TOKENS: Final = SERVICES.add(
    CsrfTokens,
    CsrfTokens(deployment(), origins=["https://app.example.com"], clock=FixedClock()),  # type: ignore[arg-type]
)
CODEC: Final = EnvelopeCodec(deployment())


@dataclass(frozen=True)
class Caller:
    id: str = "ses_1"
    principal_id: str = "usr_1"


def finish(awaitable: Awaitable[Any]) -> Any:
    """Run a coroutine that waits for nothing."""
    step = awaitable.__await__()
    try:
        next(step)
    except StopIteration as end:
        return end.value
    raise AssertionError("a check without a store waited")


def view(*headers: tuple[bytes, bytes], method: str = "POST", peer: str = "10.0.0.1", **scope: Any) -> RequestView:
    scope = {"type": "http", "path": "/", **scope}
    return RequestView.from_scope({**scope, "method": method, "headers": list(headers), "client": (peer, 1)})


def decides(policy: Policy, *names: bytes) -> Callable[[bytes], None]:
    """Return a reader that puts the bytes into headers, one value a line, and asks the policy."""
    run = policy.bind(SERVICES)

    def read(data: bytes) -> None:
        values = data.split(b"\n", 100)  # Servers take about as many.
        headers = [(names[place % len(names)], value) for place, value in enumerate(values)]
        for method in ("POST", "OPTIONS"):
            exchange = Exchange(view(*headers, method=method))
            exchange.principal = Caller()
            outcome = finish(run(exchange))
            assert outcome is None or isinstance(outcome, Problem | Reply)
            for name, value in exchange.effects:
                assert not set(name + value) & {0, 10, 13}

    return read


def read_json(data: bytes) -> None:
    found = load_json(data)
    assert json.loads(data) == found


def read_cookies(data: bytes) -> None:
    parse_cookies(data)
    data = re.sub(rb"(?<![ \t])[ \t]++=", b"=", data)  # Where the two differ, and say so.
    value, doubled = find_cookie(data, b"n")
    mine = [one for name, one in parse_cookies(data) if name == "n"]
    assert value == (mine[0].encode("latin-1") if mine else None)
    assert doubled == (len(mine) > 1)


def write_cookie(data: bytes) -> None:
    name, _, value = data.decode("latin-1").partition("=")
    line = format_cookie(name, value)
    assert line.isascii()
    assert not set(line) & {0, 10, 13}
    assert line.count(b";") == 4


def read_hops(name: bytes) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        # Servers take about as many lines.
        scope = {"client": ("10.0.0.1", 1), "headers": [(name, one) for one in data.split(b"\n", 100)]}
        found = client_address(scope, PROXIES, header=name.decode())
        assert found is not None
        assert ip_address(str(found)) == found
        # The same bytes of a stranger change nothing.
        assert str(client_address({**scope, "client": ("192.0.2.1", 1)}, PROXIES, header=name.decode())) == "192.0.2.1"
        # And what stands left of our proxy's own entry changes nothing.
        appended = b"for=198.51.100.9" if name == b"forwarded" else b"198.51.100.9"
        proxied = {**scope, "headers": [*scope["headers"], (name, appended)]}  # type: ignore[misc]
        assert str(client_address(proxied, PROXIES, header=name.decode())) == "198.51.100.9"

    return read


def read_redirect(data: bytes) -> None:
    found = safe_redirect(data.decode("utf-8", "surrogateescape"), "/home")
    assert found.startswith("/")
    assert not found.startswith(("//", "/\\"))
    assert found.isascii()
    assert found.isprintable()


def read_token(data: bytes) -> None:
    exchange = Exchange(view())
    exchange.principal = Caller()
    assert not finish(TOKENS.verify(exchange, data))


def read_guest_token(data: bytes) -> None:
    token, _, cookie = data.partition(b"\n")
    assert not finish(TOKENS.verify(Exchange(view((b"cookie", cookie))), token))


def read_head(data: bytes) -> None:
    parts = [*data.split(b"\n"), b"", b""]
    request = view((b"accept", parts[0]), (b"sec-fetch-mode", parts[1]), method="GET", query_string=parts[2])
    is_navigation(request)
    request.path = parts[1].decode("latin-1")
    for name, value in to_sign_in(request, "/auth/sign-in").headers:
        assert not set(name + value) & {0, 10, 13}


def read_email(data: bytes) -> None:
    found = parse_email(data.decode("utf-8", "surrogateescape"))
    assert found is None or "@" in str(found)


def read_media_type(data: bytes) -> None:
    mine, handlers = media_type(data), media_type_of([data])
    # The guard lets nothing through that the handler would read as another type.
    assert not mine or not handlers or mine.decode() == handlers


def read_signed(data: bytes) -> None:
    first, _, second = data.partition(b"\n")
    found = read_signature(first.decode("latin-1"), second.decode("latin-1"))
    # What is read is what is signed, letter by letter, and each of the two fields has one spelling.
    assert f"{found.label}={found.parameters}".encode() == first
    assert f"{found.label}=:{b64encode(found.value).decode()}:".encode() == second
    assert len(set(found.components)) == len(found.components) <= MAXIMUM_COMPONENTS
    base = signature_base(Message("GET", "a.example", "/", {}), [], found.parameters)
    assert base.count(b"\n") == 0


def read_digest(data: bytes) -> None:
    check_digest(data.decode("latin-1"), b"body")
    assert hashlib.sha256(b"body").digest() in b64digests(data) or hashlib.sha512(b"body").digest() in b64digests(data)


def b64digests(data: bytes) -> list[bytes]:
    return [b64decode(part, validate=True) for part in data.split(b":")[1::2]]


def read_secret(data: bytes) -> None:
    found = data.decode("latin-1")
    # Nothing but what `new_secret` makes: a checksum, and no letter of another alphabet.
    assert not is_secret(found) or (found.isascii() and len(found) == len(CLIENT_SECRET))
    signing_key(found)


def text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


RATE_WORDS: Final = (b"60", b"/", b" per ", b"minute", b"15", b"m", b"h", b"days", b"-", b"0", b" ", b".")
ADDRESS_WORDS: Final = (
    b"10.0.0.1",
    b"192.0.2.1",
    b"::ffff:1.2.3.4",
    b"[2001:db8::1]:80",
    b"unknown",
    b"_x",
    b",",
    b", ",
    b'"',
    b":",
    b"%",
    b"for=",
    b"For=",
    b";",
    b"by=",
    b"proto=http",
    b"[",
    b"]",
    b" ",
    b"\t",
    b"\n",
)
PATTERNS: Final = read_origins(["https://*-a.b.com"])
ORIGIN_WORDS: Final = (
    b"https://",
    b"http://",
    b"app.example.com",
    b"null",
    b":",
    b"443",
    b"@",
    b".",
    b"/",
    b"\n",
    b"*",
    b"[::1]",
    b"evil.com",
)
TYPE_WORDS: Final = (
    b"application",
    b"/",
    b"json",
    b";",
    b" ",
    b"\t",
    b"charset=utf-8",
    b",",
    b"*",
    b'"',
    b"=",
    b"text/plain",
    b"\n",
    b"/*",
)
JSON_WORDS: Final = (
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b'"',
    b'"a"',
    b"null",
    b"true",
    b"NaN",
    b"-Infinity",
    b"1",
    b"0",
    b"-",
    b"1e400",
    b"1e5",
    b".",
    b"\\",
    b"\\u",
    b"\\ud83d",
    b"\\ude00",
    b"\\ud800",
    b" ",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"9" * 65,
)
COOKIE_WORDS: Final = (
    b"n=",
    b"n",
    b"=",
    b";",
    b"; ",
    b" ",
    b"\t",
    b'"',
    b"\\",
    b"xn=",
    b"N=",
    b"\xa0",
    b"$Path",
    b"\r\n",
)
PATH_WORDS: Final = (
    b"/",
    b"//",
    b"\\",
    b"%2f",
    b"%5c",
    b"%252f",
    b"..",
    b"..;",
    b".",
    b"?",
    b"#",
    b"@",
    b":",
    b"http:",
    b"evil.com",
    "．".encode(),
    "／".encode(),
    b"%00",
    b"%0d%0a",
    b"\t",
    b"home",
    b"%",
    b"%25",
)

TARGETS: Final = (
    Target("json", read_json, (JSONRefused,), (b'{"a":[1,2.5,"x\\u0041",null]}', b'"\\ud83d\\ude00"'), JSON_WORDS),
    Target("cookies", read_cookies, (), (b"a=1; n=2; b=3",), COOKIE_WORDS),
    Target("set-cookie", write_cookie, (ValueError,), (b"__Host-a=v", b"a=v"), COOKIE_WORDS),
    Target("x-forwarded-for", read_hops(b"x-forwarded-for"), (), (b"1.2.3.4, 10.0.0.1",), ADDRESS_WORDS),
    Target("forwarded", read_hops(b"forwarded"), (), (b'for="[::1]:80";by=10.0.0.1, for=1.2.3.4',), ADDRESS_WORDS),
    Target("address", text(parse_address), (), (b"::1", b"1.2.3.4"), ADDRESS_WORDS),
    Target("networks", text(lambda one: parse_networks([one])), (ConfigError,), (b"10.0.0.0/8",), ADDRESS_WORDS),
    Target("rate", text(parse_rate), (ConfigError,), (b"60/minute", b"5 per 15m"), RATE_WORDS),
    Target("duration", text(parse_duration), (ConfigError,), (b"15m",), RATE_WORDS),
    Target("size", text(parse_size), (ConfigError,), (b"2 KB",), (*RATE_WORDS, b"KB", b"MiB")),
    Target("origin", text(lambda one: parse_origins([one])), (ConfigError,), (b"https://a.com:81",), ORIGIN_WORDS),
    Target(
        "pattern of origins",
        text(lambda one: read_origins([one])),
        (ConfigError,),
        (b"https://*-a.b.com:81",),
        (*ORIGIN_WORDS, b"*"),
    ),
    Target("origin under a pattern", PATTERNS.trusts, (), (b"https://x-a.b.com",), ORIGIN_WORDS),
    Target("media type", read_media_type, (), (b"application/json; charset=utf-8",), TYPE_WORDS),
    Target("form", _parse_form, (ProblemError,), (b"a=1&b=%20+x",), (b"&", b"=", b"%", b"+", b"%ff")),
    Target("redirect", read_redirect, (), (b"/home?next=/a#b",), PATH_WORDS),
    Target(
        "email",
        read_email,
        (),
        (b"ann@example.com", "ä@bücher.example".encode()),
        (b"@", b".", b"+", "ß".encode(), b"xn--"),
    ),
    Target("CSRF token", read_token, (), (b"A" * 64,), (b"-", b"_", b"+", b"/", b"=", b"A" * 16)),
    Target(
        "guest's CSRF token",
        read_guest_token,
        (),
        (b"A" * 64 + b"\n__Host-routeguard-csrf=" + b"a" * 43,),
        COOKIE_WORDS,
    ),
    Target("refresh token", tokens.read_refresh_token, (), (tokens.REFRESH,), tokens.TOKEN_WORDS),
    Target("envelope", CODEC.open, (), (b"A" * 120 + b"." + b"A" * 43,), (b".", b"A" * 43, b"-", b"=")),
    Target(
        "csrf()",
        decides(csrf(), b"origin", b"sec-fetch-site", b"x-csrf-token", b"cookie"),
        (),
        (b"https://app.example.com",),
        ORIGIN_WORDS,
    ),
    Target(
        "cors()",
        decides(
            cors(origins=["https://app.example.com"]),
            b"origin",
            b"access-control-request-method",
            b"access-control-request-headers",
        ),
        (),
        (b"https://app.example.com\nPOST\naccept, x",),
        (*ORIGIN_WORDS, b"POST", b","),
    ),
    Target("hosts()", decides(hosts("app.example.com"), b"host"), (), (b"app.example.com",), ORIGIN_WORDS),
    Target("networks()", decides(networks(deny=["10.0.0.0/9"]), b"x-forwarded-for"), (), (b"1.2.3.4",), ADDRESS_WORDS),
    Target(
        "clients()",
        decides(clients(deny=["bot", "^curl/"]), b"user-agent"),
        (),
        (b"curl/8",),
        (b"bot", b"curl/", b"\n"),
    ),
    Target(
        "body_limit()",
        decides(body_limit("2 KB"), b"content-length", b"transfer-encoding", b"content-encoding"),
        (),
        (b"5\nchunked\ngzip",),
        (b"0", b"9", b"-", b"+", b"_", b"\n", b"chunked", b"gzip", b"identity", b",", "٣".encode()),
    ),
    Target(
        "content_types()",
        decides(content_types("application/json", "image/*"), b"content-type", b"content-length"),
        (),
        (b"application/json\n5",),
        TYPE_WORDS,
    ),
    Target(
        "head", read_head, (), (b"text/html\nnavigate\na=b",), (b"text/html", b"\n", b"navigate", b"*/*", *PATH_WORDS)
    ),
    Target(
        "signature",
        read_signed,
        (SignatureError,),
        (
            b'sig=("@method" "@path");created=1;keyid="k"\nsig=:' + b"A" * 86 + b"==:",
            b"sig=()\nsig=:" + b"A" * 86 + b"==:",
        ),
        SIGNATURE_WORDS,
    ),
    Target(
        "Content-Digest",
        read_digest,
        (SignatureError,),
        (content_digest(b"body").encode(), content_digest(b"body").encode() * 2),
        (b"sha-256=:", b"sha-512=:", b":", b", ", b"=", b"A" * 43, b"md5=:", b";"),
    ),
    Target("client secret", read_secret, (ValueError,), (CLIENT_SECRET.encode(),), (b"rgs_", b"A" * 43, b"_", b" ")),
    Target("token", tokens.read_token, tokens.ALLOWED, (tokens.TOKEN,), tokens.TOKEN_WORDS),
    Target("token header", tokens.read_token_header, tokens.ALLOWED, (tokens.TOKEN,), tokens.TOKEN_WORDS),
    Target("claims", tokens.read_claims, tokens.ALLOWED, (tokens.CLAIMS,), tokens.CLAIM_WORDS),
    Target("keys", tokens.read_keys, tokens.ALLOWED, (tokens.JWKS,), tokens.JWK_WORDS),
    Target("log line", lambda data: escape(data.decode("latin-1")), (), (b"/a",), (b"\r\n", b'"', b"\x1b[")),
)
