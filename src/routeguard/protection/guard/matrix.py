"""Handlers joined with the policies they run under: for start-up verification and the matrix of protection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from routeguard.core.errors import ConfigError
from routeguard.core.marks import policy_of
from routeguard.core.policy import joined, unfit_sides
from routeguard.protection.guard.guard import handler_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from routeguard.core.policy import Policy
    from routeguard.protection.guard.guard import Guard, Kind
    from routeguard.protection.guard.inventory import Handler

_UNDECIDED: Final = "no policy. Mark it with @guard(...), open it with @guard(public), or give install() a default"
_PROVIDERS: Final = {"current_key": "guard.api_key()"}
"""What lets a handler take a value, where it is not a session."""
_ADD: Final = "Add that to it, as in @guard(guard.session(), ...) or @guard(public, ...), or give install() a default"
Source = Literal["mark", "parameter", "default", "undecided"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A handler, and what the marks on it and around it say, as its adapter reads them."""

    handler: Handler
    asked: Policy | None = None
    """What the handler's parameters ask for."""
    marked: Policy | None = None
    """The mark, where the adapter found more than the handler's own (a class and its method)."""
    above: Policy | None = None
    """The policy of mounts and routers around it: asked before, and where it decides, enough for a handler that says
    nothing itself.
    """
    problem: str | None = None
    """Why it cannot be guarded, as for a node that the adapter does not know: start-up fails."""

    @property
    def own(self) -> Policy | None:
        """The policy that the handler itself carries."""
        return self.marked if self.marked is not None else policy_of(self.handler.endpoint)

    @property
    def kind(self) -> Kind:
        """What a policy for it is bound for."""
        return "websocket" if self.handler.kind == "websocket" else "http"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the protection matrix."""

    method: str
    path: str
    policy: str
    handler: str
    source: Source


@dataclass(slots=True, eq=False)
class Installed:
    """An application that is guarded, with the options it was given."""

    guard: Guard
    entries: Callable[[], Iterable[Entry]]
    verified: bool = False

    def verify(self, *, lifespan: bool) -> list[str]:
        """Return what is wrong, all of it: at each start, but only once where requests start and no lifespan does."""
        if self.verified and not lifespan:
            return []
        fatal = lifespan and self.guard.mode == "enforce"
        findings = verify(self.guard, self.entries(), undecided_is_fatal=fatal)
        self.verified = not findings
        return findings


def matrix(guard: Guard, entries: Iterable[Entry]) -> list[Row]:
    """Return what every route requires, in words."""
    rows = []
    for entry in entries:
        method, path, name = entry.handler.method, entry.handler.path, handler_name(entry.handler.endpoint)
        if entry.problem is not None:
            rows.append(Row(method, path, f"refused: {entry.problem}", name, "undecided"))
            continue
        policy, source = _resolved(guard, entry)
        words = guard.augment(policy, entry.kind).describe() if policy is not None else _refusal(entry)
        rows.append(Row(method, path, words, name, source))
    return rows


def verify(guard: Guard, entries: Iterable[Entry], *, undecided_is_fatal: bool) -> list[str]:
    """Bind every policy now and return what is wrong, all of it.

    Handlers without a decision are findings; they are refused at run time in any case (attacks AZ-11, AZ-13).
    """
    findings: dict[str, None] = {}
    for entry in entries:
        handler = entry.handler
        at = f"{handler.method} {handler.path}"
        where = f"{at} ({handler_name(handler.endpoint)})"
        if entry.problem is not None:
            findings[f"{where}: {entry.problem}"] = None
            continue
        policy, _ = _resolved(guard, entry)
        if policy is None:
            if undecided_is_fatal:
                findings[f"{where}: {_undecided(entry)}"] = None
            continue
        for ask in guard.asks:
            if ask.call in handler.calls and not ask.provided_by(policy):
                findings[f"{where}: {_unprovided(ask.call.__name__, policy)}"] = None
        for objection in guard.objections(guard.augment(policy, entry.kind), handler.method):
            findings[f"{where}{_place(handler)}: {objection}"] = None
        try:
            guard.compile(policy, handler.endpoint, entry.kind)
        except ConfigError as error:
            findings.update(dict.fromkeys(f"{at}: {finding}" for finding in error.findings))
        except Exception as error:
            error.add_note(f"{where}: its policy ({policy.describe()}) cannot be bound")
            raise
    return list(findings)


def _place(handler: Handler) -> str:
    return "" if handler.file is None else f" at {handler.file}:{handler.line}"


def _unprovided(value: str, policy: Policy) -> str:
    """Say which value a handler asks for in vain, and what provides it."""
    way = _PROVIDERS.get(value, "guard.session()")
    return f"asks for guard.{value}, which its policy ({policy.describe()}) does not provide: {way} does"


def _undecided(entry: Entry) -> str:
    """Say what a handler without a decision lacks."""
    found = _marked(entry)
    if found is None:
        return _UNDECIDED
    if sides := unfit_sides(found):
        return f"no policy that decides: {'; '.join(sides)}"
    return f"no policy that decides: what it is marked with ({found.describe()}) does not say who may call. {_ADD}"


def _refusal(entry: Entry) -> str:
    """Say in the matrix why a handler without a decision is refused, whatever limits it has."""
    found = _marked(entry)
    if found is None:
        return "refused: no decision"
    return f"refused: {found.describe()}, but who may call is missing. {_ADD}"


def _marked(entry: Entry) -> Policy | None:
    """Return what a handler without a decision, and what is around it, is marked with, or None."""
    return joined(entry.above, entry.own)


def required(guard: Guard, entry: Entry) -> Policy | None:
    """Return the whole policy a handler runs under, or None without a decision."""
    policy, _ = _resolved(guard, entry)
    return guard.augment(policy, entry.kind) if policy is not None else None


def _resolved(guard: Guard, entry: Entry) -> tuple[Policy | None, Source]:
    own = entry.own
    covered = entry.above is not None and entry.above.decides
    settled = guard.effective_policy(own, entry.asked, above=covered)
    policy = joined(entry.above, settled)
    if policy is None or not policy.decides:
        return None, "undecided"
    if covered or (own is not None and own.decides):
        return policy, "mark"
    return policy, "parameter" if entry.asked is not None else "default"
