"""Policies: frozen data on a handler that becomes, at start-up, one function from an exchange to an outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from typing_extensions import override

from routeguard.core.check import Attack, BoundCheck, Check, Outcome, Stage, distinct, is_same, unusable
from routeguard.core.check_class import takes
from routeguard.core.decision import ALLOW, Decision, Refuse, Reply
from routeguard.core.errors import ConfigError
from routeguard.core.overrides import bound_for_tests, sent_for_tests
from routeguard.core.problem import Problem

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

__all__ = [
    "AnyOf",
    "Attack",
    "BoundCheck",
    "Check",
    "Deferred",
    "Outcome",
    "Policy",
    "Public",
    "Stage",
    "bind_steps",
    "chain",
    "conflicts",
    "decision_of",
    "deferred",
    "describe",
    "joined",
    "public",
    "unfit_sides",
]

C = TypeVar("C")

_WHO: Final = frozenset({Stage.IDENTITY, Stage.ASSURANCE, Stage.ACCESS, Stage.RESOURCE})

_REFUSAL: Final = 400
"""The least status of a refusal (RFC 9110 section 15)."""


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A tuple of checks, combined with `&` (all) and `|` (any). Equal policies compare equal."""

    checks: tuple[Check, ...] = ()
    name: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Raise ConfigError for anything that is no check (attack AZ-16)."""
        if not isinstance(self.checks, tuple):
            raise ConfigError(f"Policy({self.checks!r}) takes a tuple of checks: write Policy((check,))")
        findings = [finding for check in self.checks if (finding := unusable(check)) is not None]
        if findings:
            raise ConfigError(findings)

    @classmethod
    def of(cls, *parts: Any) -> Policy:
        """Flatten policies and checks into one policy. Raises ConfigError for anything else (attack AZ-16)."""
        checks: list[Check] = []
        for part in parts:
            if isinstance(part, Policy):
                checks.extend(part.checks)
            else:
                checks.append(part)
        return cls(tuple(checks))

    def __eq__(self, other: object) -> bool:
        """Return whether both ask for exactly the same in the same order, whatever they are called."""
        if not isinstance(other, Policy):
            return NotImplemented
        return len(self.checks) == len(other.checks) and all(map(is_same, self.checks, other.checks))

    def __hash__(self) -> int:
        return hash(self.checks)

    def __and__(self, other: Any) -> Policy:
        return Policy.of(self, other)

    def __rand__(self, other: Any) -> Policy:
        return Policy.of(other, self)

    def __or__(self, other: Any) -> Policy:
        return Policy((AnyOf.of(self, Policy.of(other)),))

    def __ror__(self, other: Any) -> Policy:
        return Policy((AnyOf.of(Policy.of(other), self),))

    def __bool__(self) -> bool:
        """Raise TypeError: ``a and b`` would quietly drop `a`, and ``a or b`` would drop `b`."""
        raise TypeError(
            "a policy is neither true nor false: combine policies with & and |, for 'and', 'or' and 'not' would drop "
            "one; what FastAPI's Depends takes is a value such as guard.current_session"
        )

    @property
    def decides(self) -> bool:
        """Whether it says who may call. A limit, a size or a header says nothing of that, and opens nothing."""
        return any(_decides(check) for check in self.checks)

    def ordered(self) -> tuple[Check, ...]:
        """Return the checks in the order they run: by stage, then as written, each once."""
        return tuple(sorted(distinct(self.checks), key=_stage_of))

    def bind(self, services: Services) -> BoundCheck:
        """Compile to one function. Raises ConfigError carrying the findings of all checks."""
        steps = [run for _, run in bind_steps(self.ordered(), services)]
        return chain(steps)

    def describe(self) -> str:
        """Return the policy in words, as the protection matrix prints it."""
        return ", ".join(describe(check) for check in self.ordered()) or "public"

    def every(self) -> Iterable[Check]:
        """Yield all checks, inside `|` too."""
        for check in self.checks:
            yield check
            if isinstance(check, AnyOf):
                for branch in check.branches:
                    yield from branch.every()

    def find(self, kind: type[C]) -> Iterable[C]:
        """Yield the checks of class `kind`, inside `|` too."""
        return (check for check in self.every() if isinstance(check, kind))


@dataclass(frozen=True, slots=True)
class Public(Check):
    """The greppable opening: everybody may call this."""

    stage = Stage.TRANSPORT

    @override
    def bind(self, services: Services) -> BoundCheck:
        return _pass

    @override
    def describe(self) -> str:
        return "public"


@dataclass(frozen=True, slots=True)
class Deferred(Check):
    """The handler decides in its body by `await guard.require(...)`; answering without having done so is 500."""

    stage = Stage.TRANSPORT

    @override
    def bind(self, services: Services) -> BoundCheck:
        return _pass

    @override
    def describe(self) -> str:
        return "decided in the handler"


public: Final = Policy((Public(),), name="public")
deferred: Final = Policy((Deferred(),), name="deferred")


@dataclass(frozen=True, slots=True)
class AnyOf(Check):
    """`|`: the first branch that passes decides.

    Only branches whose credential was sent are tried; if every tried branch refuses, the problem from the latest
    stage wins, so that 403 beats 401. Each branch works on a copy of the exchange.
    """

    stage = Stage.IDENTITY  # Identities are what branches differ in.

    branches: tuple[Policy, ...]

    @classmethod
    def of(cls, *policies: Policy) -> AnyOf:
        """Flatten nested alternatives."""
        branches: list[Policy] = []
        for policy in policies:
            only = policy.checks[0] if len(policy.checks) == 1 else None
            if isinstance(only, AnyOf):
                branches.extend(only.branches)
            else:
                branches.append(policy)
        return cls(tuple(branches))

    @override
    def bind(self, services: Services) -> BoundCheck:
        """Bind every branch. Raises ConfigError with the findings of all."""
        findings = [finding for branch in self.branches for finding in _unfit_for_either(branch)]
        bound: list[tuple[tuple[Callable[[Exchange], bool], ...], list[tuple[Stage, BoundCheck]]]] = []
        for branch in self.branches:
            try:
                checks = branch.ordered()
                bound.append((_presents(checks, services), bind_steps(checks, services)))
            except ConfigError as error:
                findings.extend(error.findings)
        if findings:
            raise ConfigError(findings)
        return _any_of(bound)

    @override
    def describe(self) -> str:
        return " or ".join(branch.describe() for branch in self.branches)


def _decides(check: Check) -> bool:
    """Whether a check is about who calls, or says openly that this does not matter."""
    if isinstance(check, AnyOf):
        return all(branch.decides for branch in check.branches)
    return isinstance(check, (Public, Deferred)) or _stage_of(check) in _WHO


def _stage_of(check: Check) -> Stage:
    """Return where a check runs. One without a stage is a finding when it is bound, and decides nothing."""
    stage = getattr(check, "stage", None)
    return stage if isinstance(stage, Stage) else Stage.TRANSPORT


def _unfit_for_either(branch: Policy) -> list[str]:
    """Return why a policy cannot be one side of `|`."""
    found: list[str] = []
    if not branch.decides:
        # ``session() | body_limit(...)`` would let everybody in by the other side.
        found.append(f"one side of '|' ({branch.describe()}) does not say who may call: use '&', or say `public`")
    if any(_stage_of(check) is Stage.EXECUTION for check in branch.checks):
        # It would answer for the handler before what stands beside the `|` has been asked.
        found.append(f"de-duplication and idempotency go beside '|', not into it: (a | b) & {branch.describe()}")
    return found


def unfit_sides(policy: Policy) -> list[str]:
    """Return what is wrong with the sides of `|` in a policy."""
    alternatives = [check for check in policy.every() if isinstance(check, AnyOf)]
    return [finding for check in alternatives for branch in check.branches for finding in _unfit_for_either(branch)]


def describe(check: Check) -> str:
    """Return a check in words: its own `describe()`, else its class name."""
    words = str(check.describe())
    # A check that says nothing of itself must not vanish from the matrix.
    return words if words.strip() else type(check).__name__


def conflicts(policy: Policy, handler: Any, kind: str) -> list[str]:
    """Return why checks of a policy cannot guard a handler, or not together."""
    reasons = [check.conflicts(policy, handler, kind) for check in policy.every()]
    return [str(reason) for reason in reasons if reason is not None]


def bind_steps(checks: Sequence[Check], services: Services) -> list[tuple[Stage, BoundCheck]]:
    """Bind each check, collecting the findings of all before raising ConfigError."""
    findings: list[str] = []
    steps: list[tuple[Stage, BoundCheck]] = []
    for check in checks:
        try:
            steps.append(_bind_step(check, services))
        except ConfigError as error:
            findings.extend(error.findings)
    if findings:
        raise ConfigError(findings)
    return steps


def _bind_step(check: Check, services: Services) -> tuple[Stage, BoundCheck]:
    """Bind one check. Raises ConfigError, also where a field or property of it is no stage."""
    name = type(check).__qualname__
    stage: object = getattr(check, "stage", None)
    if not isinstance(stage, Stage):
        raise ConfigError(f"{name}.stage is {stage!r}, not one of routeguard.Stage")
    run: object = check.bind(services)
    if not callable(run):
        raise ConfigError(f"{name}.bind returned {type(run).__name__}, not the function to run for each request")
    return stage, bound_for_tests(services, check, cast("BoundCheck", run))


def check_options(function: str, **options: Any) -> None:
    """Raise ConfigError for an option that is neither None nor a policy: `guard.session` without its parentheses."""
    findings: list[str] = []
    for name, given in options.items():
        try:
            Policy.of(*([] if given is None else [given]))
        except ConfigError as error:
            findings += [f"{function}({name}=...): {finding}" for finding in error.findings]
    if findings:
        raise ConfigError(findings)


def joined(*policies: Policy | None) -> Policy | None:
    """Return the policy that asks for all of these, or None where none is given."""
    given = [policy for policy in policies if policy is not None]
    return Policy.of(*given) if len(given) > 1 else given[0] if given else None


def decision_of(outcome: Outcome) -> Decision:
    """Turn an outcome into a decision.

    Raises TypeError for any other value: a stray truthy answer of a check is a fault, never a pass (attack AZ-16).
    """
    if outcome is None:
        return ALLOW
    if isinstance(outcome, Problem):
        if outcome.status < _REFUSAL:
            raise TypeError(f"a check refused with status {outcome.status}, which is no refusal: 400 to 599 are")
        return Refuse(outcome)
    if isinstance(outcome, Reply):
        return outcome
    raise TypeError(f"a check answered {type(outcome).__name__}; only None, Problem and Reply have a meaning")


async def _pass(exchange: Exchange) -> Outcome:  # noqa: ARG001 - the shape of a bound check
    return None


def chain(steps: list[BoundCheck]) -> BoundCheck:
    """Return one function for all steps; nothing is looped over that need not be."""
    if not steps:
        return _pass
    if len(steps) == 1:
        return steps[0]
    every = tuple(steps)

    async def run(exchange: Exchange) -> Outcome:
        for step in every:
            outcome = await step(exchange)
            if outcome is not None:
                return outcome
        return None

    return run


def _presents(checks: Sequence[Check], services: Services) -> tuple[Callable[[Exchange], bool], ...]:
    """Return what tells whether a branch's credentials were sent. Raises ConfigError."""
    found: list[Callable[[Exchange], bool]] = []
    for check in checks:
        sent: object = check.presents(services)
        if sent is None:
            continue
        if not callable(sent) or not takes(sent, 1):
            raise ConfigError(f"{type(check).__qualname__}.presents returned {sent!r}, not a function of the exchange")
        found.append(sent_for_tests(services, check, cast("Callable[[Exchange], bool]", sent)))
    return tuple(found)


def _any_of(
    branches: list[tuple[tuple[Callable[[Exchange], bool], ...], list[tuple[Stage, BoundCheck]]]],
) -> BoundCheck:
    async def run(exchange: Exchange) -> Outcome:
        tried = [steps for presents, steps in branches if all(sent(exchange) for sent in presents)]
        worst: tuple[Stage, Outcome] | None = None
        for steps in tried or [branches[0][1]]:
            fork = exchange.fork()
            stage, outcome = await _run_branch(steps, fork)
            if not isinstance(outcome, Problem):
                exchange.adopt(fork)
                return outcome
            if worst is None or stage > worst[0]:
                worst = (stage, outcome)
        return worst[1] if worst is not None else None

    return run


async def _run_branch(steps: list[tuple[Stage, BoundCheck]], exchange: Exchange) -> tuple[Stage, Outcome]:
    for stage, step in steps:
        outcome = await step(exchange)
        if outcome is not None:
            decision_of(outcome)
            return stage, outcome
    return Stage.EXECUTION, None
