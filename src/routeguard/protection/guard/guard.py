"""The guard: turns the marks on handlers into compiled policies, once, and remembers what it decided to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from routeguard.core.check import is_same
from routeguard.core.errors import ConfigError
from routeguard.core.marks import mark
from routeguard.core.policy import Deferred, Policy, Public, Stage, bind_steps, chain, conflicts
from routeguard.protection.guard.log import logger
from routeguard.protection.guard.transport import BodyLimited, transport

if TYPE_CHECKING:
    from routeguard.core.decision import Reply
    from routeguard.core.exchange import Exchange
    from routeguard.core.policy import BoundCheck, Check, Outcome
    from routeguard.core.request import RequestView
    from routeguard.core.services import Services
    from routeguard.protection.guard.refusals import Shape

H = TypeVar("H")
Kind = Literal["http", "websocket"]
Mode = Literal["enforce", "observe"]

DEFAULT_BODY_LIMIT: Final = 1024 * 1024
"""Bytes; every guarded route unless its policy states another."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A value a handler can ask for as a parameter, and the policy that provides it: asking is requiring."""

    call: Callable[..., Any]
    policy: Policy
    provided_by: Callable[[Policy], bool]


@dataclass(frozen=True, slots=True)
class Compiled:
    """One handler's policy, ready to run."""

    policy: Policy
    run: BoundCheck
    again: BoundCheck
    """The same without what counts a request or runs it once: for when it is asked about other facts."""
    unsafe: BoundCheck
    """The same without what counts a request: for when a safe method has become an unsafe one."""
    handler: str
    body_limit: int | None
    """Bytes; None when the policy states none."""
    guarded: bool
    """False for `public`: its answers may be cached."""
    deferred: bool
    """True when the handler decides in its body."""
    decides: bool
    """Whether it says who may call. What only limits leaves that to others."""
    steps: tuple[tuple[Check | None, Stage, BoundCheck], ...] = ()
    """What `run` is made of, each with the check that it is bound from."""

    def beyond(self, passed: Compiled, *, unsafe: bool) -> BoundCheck:
        """Return what is asked of a request that `passed` has let through with other facts.

        What that has counted or run already is not asked a second time, also where another method has a policy of its
        own. What runs a request once lets a safe method pass, so it is asked where the method has become an `unsafe`
        one (attack: a method override that makes a POST of a GET, without the Idempotency-Key).
        """
        if passed is self:
            return self.unsafe if unsafe else self.again
        done = passed.policy.checks
        return chain(
            [
                run
                for check, stage, run in self.steps
                if check is None
                or not (check.once if unsafe else _is_spent(check, stage))
                or not any(is_same(check, each) for each in done)
            ]
        )


@dataclass(slots=True)
class Guard:
    """Compiles policies against services. Holds no per-request state.

    `default` applies to handlers without a mark; without it they are refused. `augment` lets the application add
    what every policy of a kind carries (CSRF for cookie sessions). `sign_in` is the page browsers are sent to.
    """

    services: Services
    default: Policy | None = None
    frontend: Policy | None = None
    """For the files of a front end that the framework serves by a route which cannot be marked."""
    docs: Policy | None = None
    """For the documentation pages that the framework makes, of mounted applications too."""
    augment: Callable[[Policy, Kind], Policy] = field(default=lambda policy, _: policy)
    body_limit: int = DEFAULT_BODY_LIMIT
    mode: Mode = "enforce"
    sign_in: str | None = None
    refusal: Shape | None = None
    """The application's own form of refusals."""
    root: str = ""
    """The path below which browsers find the application, where the settings say so."""
    root_reported: bool = False
    """Whether the log says already that the settings lack the path that requests come by."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Added to every response of the application whose handler did not set the name."""
    page_headers: tuple[tuple[bytes, bytes], ...] = ()
    """The same for HTML, which the headers for data would leave without style and script."""
    objections: Callable[[Policy, str], Iterable[str]] = field(default=lambda _policy, _method: ())
    """What the settings forbid of a whole policy on a route of this method: findings at start-up."""
    preflight: Callable[[Policy, RequestView], Reply | None] = field(default=lambda _policy, _request: None)
    """Answers a CORS preflight for a route whose handlers do not take OPTIONS."""
    asks_for_session: Callable[[Policy], bool] = field(default=lambda _policy: False)
    """Whether no caller passes a policy without a session: around the sign-in itself that is a mistake."""
    asks: list[Ask] = field(default_factory=list)
    overridable: tuple[Callable[..., Any], ...] = ()
    """The values that tests may override to say who is calling."""
    overrides_reported: bool = False
    """Whether the log says already that an application overrides them outside test mode."""

    def compare_root(self, found: str) -> None:
        """Log once that links in mails, which are made without a request, lack the prefix that pages have."""
        if not self.root_reported and self.sign_in is not None and not self.root.endswith(found):
            self.root_reported = True
            said = "requests come in below %s, but links in mails begin with the setting root_path, which is %r"
            # Not "set it to that": behind some middleware the client chose it (attack RED-01).
            way = "set ROUTEGUARD_ROOT_PATH to the path below which browsers find the application"
            logger.warning(f"{said}: {way}", found, self.root)

    def __call__(self, *policies: Any) -> Callable[[H], H]:
        """Mark a handler: ``@guard(signed_in, csrf())``. The handler itself is returned unchanged."""
        if not policies:
            raise ConfigError("guard() needs at least one policy; say `public` to open a route")
        policy = Policy.of(*policies)
        return lambda handler: mark(handler, policy)

    def effective_policy(self, marked: Policy | None, asked: Policy | None, *, above: bool = False) -> Policy | None:
        """Return what must pass: the mark; where it does not say who may call, with what does.

        That is what the handler's parameters ask for, else the policy of a mount `above`, else the default. None when
        nothing decides: a limit alone opens no route.
        """
        if marked is not None and marked.decides:
            return marked
        rest = asked if asked is not None or above else self.default
        if rest is None:
            return marked if above else None
        return rest if marked is None else rest & marked

    def compile(self, policy: Policy, handler: Any, kind: Kind) -> Compiled:
        """Bind `policy` for `handler`. Raises ConfigError with every finding."""
        name = handler_name(handler)
        policy = self.augment(policy, kind)
        findings = conflicts(policy, handler, kind)
        try:
            # Headers for the response first, so that what is unreadable is refused with them; then our own look, which
            # holds every request to its limit and so does the work of `body_limit()` too.
            checks = [check for check in policy.ordered() if not _only_limits(check)]
            bound = bind_steps(checks, self.services)
            steps = sorted([(Stage.TRANSPORT, _readable), *bound], key=_by_stage)
        except ConfigError as error:
            raise ConfigError([f"{name}: {finding}" for finding in (*findings, *error.findings)]) from None
        if findings:
            raise ConfigError([f"{name}: {finding}" for finding in findings])
        spent = {id(run) for check, (stage, run) in zip(checks, bound, strict=True) if _is_spent(check, stage)}
        counted = {id(run) for check, (_, run) in zip(checks, bound, strict=True) if check.once}
        of = {id(run): check for check, (_, run) in zip(checks, bound, strict=True)}
        limits = [check.body_limit for check in policy.checks if isinstance(check, BodyLimited)]
        return Compiled(
            policy=policy,
            run=chain([run for _, run in steps]),
            again=chain([run for _, run in steps if id(run) not in spent]),
            unsafe=chain([run for _, run in steps if id(run) not in counted]),
            handler=name,
            body_limit=min(limits, default=None),
            guarded=_is_guarded(policy),
            deferred=any(isinstance(check, Deferred) for check in policy.find(Deferred)),
            decides=policy.decides,
            steps=tuple((of.get(id(run)), stage, run) for stage, run in steps),
        )


async def _readable(exchange: Exchange) -> Outcome:
    return transport(exchange.request, exchange.body_limit or 0)


def _only_limits(check: Check) -> bool:
    """Return whether a check states a limit and does nothing else. Any other check is bound, whatever it is made of."""
    return isinstance(check, BodyLimited) and type(check).bind is BodyLimited.bind


def _is_spent(check: Check, stage: Stage) -> bool:
    """Return whether a check has done its work once it passed: it counted the request, or runs it once."""
    return stage is Stage.EXECUTION or check.once


def _by_stage(step: tuple[Stage, BoundCheck]) -> Stage:
    return step[0]


def _is_guarded(policy: Policy) -> bool:
    """Whether answers may differ by caller: all but `public`, alone or with limits on the request itself."""
    opened = any(isinstance(check, Public) for check in policy.checks)
    limits = all(check.stage <= Stage.NETWORK and not isinstance(check, Deferred) for check in policy.checks)
    return not (opened and limits)


def handler_name(handler: Any) -> str:
    """Return `module.qualname` of a handler, for findings and the log."""
    while isinstance(handler, partial):
        handler = handler.func
    kind = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{kind.__module__}.{kind.__qualname__}"
