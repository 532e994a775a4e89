"""Keys that tokens are verified with (RFC 7517), each good for its own algorithms and no other."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from routeguard.foundation.jose.key_shapes import looks_public
from routeguard.foundation.jose.models import UnusableKey

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_KEYS: Final = 100
_SECRET_SIZES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Bytes: RFC 7518 section 3.2, at least as long as the hash."""
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_RSA_BITS: Final = range(2048, 8193)
"""Below, it can be broken; above, it is there to cost us time."""
_RSA_EXPONENTS: Final = range(2**16 + 1, 2**32, 2)
"""FIPS 186-5 section A.1.1: odd and above 2^16, for smaller ones forgive mistakes in padding."""
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
"""Private members of RSA, EC and OKP keys (RFC 7518 sections 6.2.2 and 6.3.2, RFC 8037 section 2)."""
_TEXTS: Final = ("kty", "kid", "alg", "use", "crv", "n", "e", "x", "y", "k")
_FAULTS: Final = (
    JoseError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    UnsupportedAlgorithm,
    OverflowError,
)

AnyKey = ECKey | OctKey | OKPKey | RSAKey


class Key(NamedTuple):
    """One key, and what it may be used for. `algorithms` come from the key or from us, never from a token."""

    kid: str | None
    algorithms: tuple[str, ...]
    native: AnyKey

    def __repr__(self) -> str:
        return f"Key({self.kid})"


class KeySet:
    """Keys by their ids. A key id of a token is looked up here and used for nothing else (attacks JWT-08, JWT-09)."""

    __slots__ = ("_all", "_by_kid", "_unnamed")

    def __init__(self, keys: Iterable[Key]) -> None:
        self._all = tuple(keys)
        self._unnamed = tuple(key for key in self._all if key.kid is None)
        self._by_kid: dict[str, tuple[Key, ...]] = {}
        for key in self._all:
            if key.kid is not None:
                self._by_kid[key.kid] = (*self._by_kid.get(key.kid, ()), key)

    @classmethod
    def load(cls, keys: Any, *, algorithms: Sequence[str] | None = None) -> Self:
        """Return the keys of a JWKS, a JWK, a list of JWKs, the PEM of a public key, or an HMAC secret.

        `algorithms` narrows what they may be used for; where a key does not say its own, it may be used for those of
        them that fit its type, and without `algorithms` for one (EdDSA, RS256, HS256, or its curve's). Members of a
        set that are not understood are left out (RFC 7517 section 5). Raises UnusableKey.
        """
        if isinstance(algorithms, str):
            algorithms = (algorithms,)
        if isinstance(keys, KeySet):
            return cls(keys.narrowed(algorithms))
        if isinstance(keys, Mapping) and "keys" in keys:
            return cls(_read_set(keys["keys"], algorithms))
        if isinstance(keys, Mapping):
            return cls([_read_jwk(keys, algorithms)])
        if isinstance(keys, (str, bytes, bytearray)):
            raw = keys.encode("utf-8", "surrogatepass") if isinstance(keys, str) else bytes(keys)
            return cls([_read_raw(raw, algorithms)])
        if isinstance(keys, Sequence):
            return cls([_read_jwk(key, algorithms) for key in _few(keys)])
        raise UnusableKey("key")

    def find(self, kid: str | None, algorithm: str) -> list[Key]:
        """Return the keys a token may have been signed with: those of its key id, and those that have none."""
        found = self._all if kid is None else (*self._by_kid.get(kid, ()), *self._unnamed)
        return [key for key in found if algorithm in key.algorithms]

    def has(self, kid: str) -> bool:
        """Return whether a key of this id is here."""
        return kid in self._by_kid

    def __len__(self) -> int:
        return len(self._all)

    def narrowed(self, algorithms: Sequence[str] | None) -> list[Key]:
        """Return the keys, each for no more than `algorithms`."""
        if algorithms is None:
            return list(self._all)
        return [key._replace(algorithms=tuple(one for one in key.algorithms if one in algorithms)) for key in self._all]


def decode_base64url(text: bytes) -> bytes:
    """Return the bytes of unpadded base64url. Raises ValueError for any other spelling of them.

    Padding, line breaks, the other alphabet and unused bits that are set: each byte string has one spelling, so that
    no list of refused tokens is dodged by another one (attack JWT-26, RFC 7515 appendix C).
    """
    found = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if urlsafe_b64encode(found).rstrip(b"=") != text:
        raise ValueError("not the canonical spelling")
    return found


def _few(keys: Any) -> Sequence[Any]:
    if not isinstance(keys, Sequence) or isinstance(keys, (str, bytes)) or len(keys) > MOST_KEYS:
        raise UnusableKey("key-set")
    return keys


def _read_set(keys: Any, algorithms: Sequence[str] | None) -> list[Key]:
    found: list[Key] = []
    for one in _few(keys):
        try:
            found.append(_read_jwk(one, algorithms))
        except UnusableKey:
            continue
    public = [key for key in found if not isinstance(key.native, OctKey)]
    # Attacks JWT-03, JWT-04: a set that is published has no secrets in it, so a symmetric key beside public ones was
    # put there by mistake or by another party.
    return public or found


def _read_jwk(jwk: Any, algorithms: Sequence[str] | None) -> Key:
    try:
        return _read_members(jwk, algorithms)
    except _FAULTS as error:
        raise error if isinstance(error, UnusableKey) else UnusableKey("key") from None


def _read_members(jwk: Any, algorithms: Sequence[str] | None) -> Key:
    # RFC 7517 section 4: what we look at is text, and anybody may have written something else there.
    if not isinstance(jwk, Mapping) or not all(isinstance(jwk.get(name), str | None) for name in _TEXTS):
        raise UnusableKey("key")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, (list, tuple)):
        raise UnusableKey("key-use")
    if "verify" not in operations and "sign" not in operations:
        raise UnusableKey("key-use")
    # A key whose private half was published signs for everybody. Nor is a secret part of an asymmetric key.
    if not _PRIVATE.isdisjoint(jwk) or ("k" in jwk and jwk.get("kty") != "oct"):
        raise UnusableKey("private-key")
    return _key(jwk.get("kid"), _READERS[jwk["kty"]](jwk), jwk.get("alg"), algorithms)


def _read_rsa(jwk: Mapping[str, Any]) -> RSAKey:
    modulus, exponent = (int.from_bytes(decode_base64url(jwk[name].encode())) for name in ("n", "e"))
    if modulus.bit_length() not in _RSA_BITS or exponent not in _RSA_EXPONENTS:
        raise UnusableKey("key-size")
    # Only what is public: a verifier has no use for the rest.
    return RSAKey.import_key({"kty": "RSA", "n": jwk["n"], "e": jwk["e"]})


def _read_ec(jwk: Mapping[str, Any]) -> ECKey:
    return ECKey.import_key({"kty": "EC", "crv": jwk["crv"], "x": jwk["x"], "y": jwk["y"]})


def _read_okp(jwk: Mapping[str, Any]) -> OKPKey:
    if jwk["crv"] != "Ed25519":
        raise UnusableKey("key-type")
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": jwk["x"]})


def _read_oct(jwk: Mapping[str, Any]) -> OctKey:
    return _secret(decode_base64url(jwk["k"].encode()))


_READERS: Final[dict[str, Callable[[Any], AnyKey]]] = {
    "RSA": _read_rsa,
    "EC": _read_ec,
    "OKP": _read_okp,
    "oct": _read_oct,
}


def _read_raw(raw: bytes, algorithms: Sequence[str] | None) -> Key:
    if raw.lstrip().startswith(b"-----BEGIN "):
        return _key(None, _read_pem(raw), None, algorithms)
    return _key(None, _secret(raw), None, algorithms)


def _read_pem(pem: bytes) -> AnyKey:
    try:
        found: Any = serialization.load_pem_public_key(pem.strip())
        for kind in (RSAKey, ECKey, OKPKey):
            binding: Any = kind.binding
            if binding.check_cryptography_key(found):
                return _READERS[kind.key_type](binding.convert_raw_key_to_dict(found, private=False))
    except _FAULTS as error:
        raise error if isinstance(error, UnusableKey) else UnusableKey("key") from None
    raise UnusableKey("key-type")


def _secret(value: bytes) -> OctKey:
    if len(value) < _SECRET_SIZES["HS256"]:
        raise UnusableKey("short-secret")
    # Attacks JWT-03, JWT-04: what everybody may know is no secret, in whatever form it was written down.
    if looks_public(value):
        raise UnusableKey("public-key-as-secret")
    return OctKey.import_key(value)


def _key(kid: str | None, native: AnyKey, declared: Any, algorithms: Sequence[str] | None) -> Key:
    fitting, usual = _fitting(native)
    if declared is not None:
        # RFC 8725 section 3.1: one key, one algorithm, and the key says which.
        found = tuple(one for one in fitting if one == _PLAIN_NAMES.get(declared, declared))
    else:
        found = (usual,)
    if algorithms is not None:
        found = tuple(one for one in (found if declared is not None else fitting) if one in algorithms)
    if not found and algorithms is None:
        raise UnusableKey("key-algorithm")
    return Key(kid, found, native)


_PLAIN_NAMES: Final = {"Ed25519": "EdDSA"}
"""RFC 9864 gives EdDSA over this curve a name of its own."""


def _fitting(native: AnyKey) -> tuple[tuple[str, ...], str]:
    """Return the algorithms a key's type allows, and the one it is for unless anybody says otherwise."""
    if isinstance(native, RSAKey):
        return _RSA, "RS256"
    if isinstance(native, OKPKey):
        return ("EdDSA",), "EdDSA"
    if isinstance(native, ECKey):
        name = _CURVES.get(native.curve_name)
        if name is None:
            raise UnusableKey("key-type")
        return (name,), name
    size = len(native.raw_value)
    return tuple(name for name, least in _SECRET_SIZES.items() if size >= least), "HS256"
