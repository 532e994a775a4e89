"""How often a caller may call: token bucket or sliding window, several rates at once, tiers by plan."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from typing_extensions import override

from routeguard.core.errors import ConfigError, Unavailable
from routeguard.core.policy import Attack, BoundCheck, Check, Outcome, Policy, Stage
from routeguard.core.rate import Rate, parse_rate
from routeguard.foundation.ephemeral.memory import MemoryEphemeral
from routeguard.foundation.ephemeral.protocol import Algorithm, Attempt, Ephemeral, Hit, Quota
from routeguard.protection.traffic.callers import Key, api_key, ip, key_of, plan, plan_of, user
from routeguard.protection.traffic.problems import QUOTA_EXCEEDED
from routeguard.protection.traffic.refunds import Refunds

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.problem import Problem
    from routeguard.core.services import Services

__all__ = ["RateLimit", "api_key", "ip", "plan", "rate_limit", "user"]

Rates: TypeAlias = "str | Sequence[str]"
OnOutage = Literal["refuse", "local"]
Hits: TypeAlias = "Sequence[Hit]"

_POLICY: Final = b"ratelimit-policy"
_LIMIT: Final = b"ratelimit"
_QUOTED: Final = frozenset(chr(code) for code in range(0x20, 0x7F)) - {'"', "\\"}


def rate_limit(
    rate: Rates | Mapping[str, Rates],
    *,
    by: Key | Callable[[Exchange], str | None] = ip,
    algorithm: Algorithm = "gcra",
    burst: int | None = None,
    cost: int = 1,
    on_outage: OnOutage = "refuse",
    name: str | None = None,
    remaining: bool = True,
) -> Policy:
    """Return the policy that refuses with 429 `quota-exceeded` beyond a rate: ``rate_limit("60/minute", by=user)``.

    `rate` is one rate, several that must all hold, or with ``by=plan`` a table of them by plan, whose first entry
    counts for callers of an unlisted plan. `by` is `ip`, `user`, `api_key`, `plan` or a function of the exchange;
    callers without what it asks for are counted by address. `gcra` is a token bucket that holds `burst` units
    (the limit, unless told) and regains units all the time: of "20/minute" one every three seconds, also while a race
    lasts. `sliding` never lets more than the limit through in any span of the period. A call spends `cost` units;
    refused ones spend nothing.

    Each handler has a budget of its own (one made by another function has one for each path it is at); handlers whose
    limits have the same `name` share one (attack RL-19). When
    the store is away, ``"refuse"`` answers 503 and ``"local"`` counts in this process until it is back, saying so by
    the parameter `degraded` in the RateLimit-Policy field. ``remaining=False`` leaves the RateLimit field out of
    passing answers, where it would tell too much. Fields are those of draft-ietf-httpapi-ratelimit-headers.
    Raises ConfigError for anything that is not a rate.
    """
    if isinstance(rate, int | float):
        raise ConfigError(f"rate_limit({rate!r}) does not say in which time: write rate_limit('{rate}/minute')")
    key = key_of(by)
    if key is None:
        raise ConfigError(f"rate_limit(by={by!r}) is neither a key such as `ip` or `user` nor a function")
    if inspect.iscoroutinefunction(by):
        raise ConfigError(
            f"rate_limit(by={by!r}) is a coroutine function; by= is a plain one that returns text at once"
        )
    if isinstance(rate, Mapping) != (key is plan):
        raise ConfigError("rate_limit: a table of rates goes with by=plan, and by=plan with a table of rates")
    tiers = tuple(rate.items()) if isinstance(rate, Mapping) else (("", rate),)
    findings: list[str] = []
    made: list[Tier] = []
    for tier, rates in tiers:
        try:
            made.append(_tier(tier, rates, algorithm, burst))
        except ConfigError as error:
            findings += error.findings
    if not tiers:
        findings.append("rate_limit: the table of rates is empty")
    findings += _findings(made, cost=cost, on_outage=on_outage, name=name)
    if findings:
        raise ConfigError(findings)
    return Policy((RateLimit(tuple(made), key, cost, on_outage, name, remaining),))


@dataclass(frozen=True, slots=True)
class Tier:
    """The rates of one plan, or of everybody."""

    plan: str
    rates: tuple[Rate, ...]
    quotas: tuple[Quota, ...]


@dataclass(frozen=True, slots=True)
class RateLimit(Check):
    """At most so many calls by one caller."""

    statuses: ClassVar[tuple[int, ...]] = (429, 503)
    once = True

    tiers: tuple[Tier, ...]
    by: Key = ip
    cost: int = 1
    on_outage: OnOutage = "refuse"
    name: str | None = None
    remaining: bool = True
    refund: bool = False
    """Whether a request that is answered with 503 gets its units back (see `refunds`)."""

    @property
    @override
    def stage(self) -> Stage:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """By address before anybody is looked up, else once it is known who calls."""
        return self.by.stage

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Compile against the store. Raises ConfigError without one."""
        store: Ephemeral = services.get(Ephemeral)
        subject = self.by.bind(services)
        counters = [_Counter(self, tier) for tier in self.tiers]
        simple = len(counters) == 1 and len(counters[0].quotas) == 1 and not self.refund
        if isinstance(store, MemoryEphemeral) and simple:
            return _in_memory(store, subject, counters[0])
        spend = _spender(self, store)
        by_plan = {counter.tier.plan: counter for counter in counters}
        first, tiered = counters[0], len(counters) > 1

        async def limited(exchange: Exchange) -> Outcome:
            counter = by_plan.get(plan_of(exchange) or "", first) if tiered else first
            return await spend(exchange, subject(exchange), counter)

        return limited

    @override
    def describe(self) -> str:
        words = [f"{tier.plan} {' and '.join(map(str, tier.rates))}".strip() for tier in self.tiers]
        return f"at most {', '.join(words)} by {self.by.name}"

    @override
    def attacks(self) -> Iterable[Attack]:
        """Yield one call too many."""
        most = min(min(quota.burst for quota in tier.quotas) for tier in self.tiers) // self.cost
        yield Attack(name="one call too many", status=429, repeat=most + 1)


class _Counter:
    """One tier, made ready: keys, labels and header bytes that never change."""

    __slots__ = ("_by_endpoint", "_named", "cost", "degraded", "labels", "policy", "quotas", "remaining", "tier")

    def __init__(self, check: RateLimit, tier: Tier) -> None:
        self.tier = tier
        self.quotas = tier.quotas
        self.cost = check.cost
        self.remaining = check.remaining
        words = [str(rate) for rate in tier.rates]
        name = check.name
        self.labels = words if name is None else [name] if len(words) == 1 else [f"{name} {word}" for word in words]
        pairs = zip(self.labels, tier.quotas, strict=True)
        parts = [f'"{label}";q={quota.limit};w={ceil(quota.period)}' for label, quota in pairs]
        self.policy = (_POLICY, ", ".join(parts).encode())
        self.degraded = (_POLICY, ", ".join(part + ";degraded" for part in parts).encode())
        self._named = self._suffixes(f"n:{name}") if name is not None else None
        self._by_endpoint: dict[tuple[int, int], tuple[tuple[str, ...], Any]] = {}

    def suffixes(self, exchange: Exchange) -> tuple[str, ...]:
        """Return what follows the subject in the keys: the shared name, else the handler the request is for."""
        if self._named is not None:
            return self._named
        scope = exchange.request.scope
        endpoint, route = scope.get("endpoint"), scope.get("route")
        place = (id(endpoint), id(route))
        found = self._by_endpoint.get(place)
        if found is None:
            # Both are kept with the name: their ids mean nothing once they are gone.
            found = self._by_endpoint[place] = (self._suffixes(_name_of(endpoint, route)), (endpoint, route))
        return found[0]

    def _suffixes(self, scope: str) -> tuple[str, ...]:
        # Rate and algorithm are part of the key: another rate is another counter, its state would be misread.
        return tuple(
            f":rl:{scope}:{quota.limit}:{quota.period:g}:{quota.burst}:{quota.algorithm}" for quota in self.quotas
        )

    def attempts(self, subject: str, exchange: Exchange) -> list[Attempt]:
        """Return what this call spends."""
        pairs = zip(self.suffixes(exchange), self.quotas, strict=True)
        return [Attempt(subject + suffix, quota, self.cost) for suffix, quota in pairs]

    def settle(self, exchange: Exchange, hits: Hits) -> Problem | None:
        """Turn what the store said into the outcome; on a pass, say what is left."""
        if all(hit.allowed for hit in hits):
            if self.remaining:
                exchange.effects.append((_LIMIT, self._limits(hits)))
            return None
        violated = [label for label, hit in zip(self.labels, hits, strict=True) if not hit.allowed]
        # Never earlier than the latest `t` among those who refuse (draft, section 5).
        wait = str(max(max(ceil(hit.reset), 1) for hit in hits if not hit.allowed))
        headers = [("retry-after", wait)]
        if self.remaining:
            headers.append(("ratelimit", self._limits(hits).decode()))
        members: dict[str, Any] = {"violated-policies": violated}
        return QUOTA_EXCEEDED(headers=tuple(headers), **members)

    def _limits(self, hits: Hits) -> bytes:
        return b", ".join(
            b'"%b";r=%d;t=%d' % (label.encode(), hit.remaining, max(ceil(hit.reset), 0 if hit.allowed else 1))
            for label, hit in zip(self.labels, hits, strict=True)
        )


def _in_memory(store: MemoryEphemeral, subject: Callable[[Exchange], str], counter: _Counter) -> BoundCheck:
    """Return the check for the common case, which waits for nothing and formats only two numbers."""
    take, quota, cost = store.take, counter.quotas[0], counter.cost
    policy, show = counter.policy, counter.remaining
    form = b'"%b";r=%%d;t=%%d' % counter.labels[0].replace("%", "%%").encode()
    suffixes = counter.suffixes

    async def limited(exchange: Exchange) -> Outcome:
        hit = take(subject(exchange) + suffixes(exchange)[0], quota, cost)
        effects = exchange.effects
        effects.append(policy)
        if not hit.allowed:
            return counter.settle(exchange, (hit,))
        if show:
            effects.append((_LIMIT, form % (hit.remaining, ceil(hit.reset))))
        return None

    return limited


def _spender(check: RateLimit, store: Ephemeral) -> Callable[[Exchange, str, _Counter], Awaitable[Problem | None]]:
    """Return the function that spends in the store, or, when it is away, does what the policy declares (RL-13)."""
    local = MemoryEphemeral() if check.on_outage == "local" else None

    async def spend(exchange: Exchange, subject: str, counter: _Counter) -> Problem | None:
        attempts = counter.attempts(subject, exchange)
        exchange.effects.append(counter.policy)
        spent_in = store
        try:
            hits = await store.hit(attempts)
        except Unavailable:
            if local is None:
                raise
            spent_in = local
            hits = local.hit_now(attempts)
            exchange.effects[exchange.effects.index(counter.policy)] = counter.degraded
        outcome = counter.settle(exchange, hits)
        if check.refund and outcome is None:
            Refunds.of(exchange).add(partial(spent_in.hit, [one._replace(cost=-one.cost) for one in attempts]))
        return outcome

    return spend


def _tier(tier: str, rates: Rates, algorithm: Algorithm, burst: int | None) -> Tier:
    parsed = [parse_rate(rate) for rate in ([rates] if isinstance(rates, str) else rates)]
    if not parsed:
        raise ConfigError("rate_limit needs at least one rate")
    if burst is not None and (isinstance(burst, bool) or not isinstance(burst, int)):
        raise ConfigError(f"rate_limit: burst {burst!r} is not a whole number")
    quotas = tuple(
        Quota(limit=rate.limit, period=rate.seconds, burst=rate.limit if burst is None else burst, algorithm=algorithm)
        for rate in parsed
    )
    return Tier(tier, tuple(parsed), quotas)


def _findings(tiers: list[Tier], *, cost: int, on_outage: str, name: str | None) -> list[str]:
    findings: list[str] = []
    least = min((quota.burst for tier in tiers for quota in tier.quotas), default=1)
    if isinstance(cost, bool) or not isinstance(cost, int) or not 1 <= cost <= least:
        findings.append(f"rate_limit: cost {cost!r} must be a whole number from 1 to the burst, or no request passes")
    if on_outage not in {"refuse", "local"}:
        findings.append(f"rate_limit: on_outage {on_outage!r} is neither 'refuse' nor 'local'")
    if name is not None and (not name or not _QUOTED.issuperset(name)):
        findings.append(f"rate_limit: name {name!r} must be printable ASCII without quotes")
    return findings


def _name_of(endpoint: Any, route: Any) -> str:
    """Return the stable name of a handler: the same in every process, whatever spelling of its path was asked for.

    That is the name it has in its module. Where that is not the handler's own (a function made by another, a lambda,
    a bound method, a `partial`, an instance), handlers of one kind would share a budget, which one of them could use up
    for all (attack RL-19): the path of the route, as written in the code, tells them apart.
    """
    plain = endpoint
    while hasattr(plain, "func"):
        plain = plain.func
    kind = plain if hasattr(plain, "__qualname__") else type(plain)
    name = f"h:{kind.__module__}.{kind.__qualname__}"
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return name if found is endpoint else f"{name}@{getattr(route, 'path', '')}"
