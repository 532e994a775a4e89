"""Policies: frozen data on a handler that becomes, at start-up, one function from an exchange to an outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from routeguard.core.check import (
    Attack,
    BoundCheck,
    Check,
    Outcome,
    Stage,
    call_method,
    distinct,
    optional_method,
    require_arguments,
    takes,
)
from routeguard.core.decision import ALLOW, Decision, Refuse, Reply
from routeguard.core.errors import ConfigError
from routeguard.core.problem import Problem

if TYPE_CHECKING:
    from routeguard.core.exchange import Exchange
    from routeguard.core.services import Services

__all__ = [
    "AnyOf", "Attack", "BoundCheck", "Check", "Deferred", "Outcome", "Policy", "Public", "Stage", "bind_steps", "chain",
    "decision_of", "deferred", "describe", "joined", "public", "unfit",
]  # fmt: skip

_WHO: Final = frozenset({Stage.IDENTITY, Stage.ASSURANCE, Stage.ACCESS, Stage.RESOURCE})


@dataclass(frozen=True, slots=True)
class Policy:
    """A tuple of checks, combined with `&` (all) and `|` (any). Equal policies compare equal."""

    checks: tuple[Any, ...] = ()
    name: str | None = field(default=None, compare=False)

    @classmethod
    def of(cls, *parts: Any) -> Policy:
        """Flatten policies and checks into one policy. Raises ConfigError for anything else (attack AZ-16)."""
        checks: list[Any] = []
        for part in parts:
            if isinstance(part, Policy):
                checks.extend(part.checks)
            elif not isinstance(part, type) and isinstance(part, Check):
                checks.append(part)
            else:
                raise ConfigError(_no_policy(part))
        return cls(tuple(checks))

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
        raise TypeError("combine policies with & and |; 'and', 'or' and 'not' would drop one")

    @property
    def decides(self) -> bool:
        """Whether it says who may call. A limit, a size or a header says nothing of that, and opens nothing."""
        return any(_decides(check) for check in self.checks)

    def ordered(self) -> tuple[Any, ...]:
        """Return the checks in the order they run: by stage, then as written, each once."""
        return tuple(sorted(distinct(self.checks), key=_stage_of))

    def bind(self, services: Services) -> BoundCheck:
        """Compile to one function. Raises ConfigError carrying the findings of all checks."""
        steps = [run for _, run in bind_steps(self.ordered(), services)]
        return chain(steps)

    def describe(self) -> str:
        """Return the policy in words, as the protection matrix prints it."""
        return ", ".join(describe(check) for check in self.ordered()) or "public"

    def find(self, kind: type[Any]) -> Iterable[Any]:
        """Yield the checks of class `kind`, inside `|` too."""
        for check in self.checks:
            if isinstance(check, kind):
                yield check
            if isinstance(check, AnyOf):
                for branch in check.branches:
                    yield from branch.find(kind)


@dataclass(frozen=True, slots=True)
class Public:
    """The greppable opening: everybody may call this."""

    @property
    def stage(self) -> Stage:
        """Runs first, and passes."""
        return Stage.TRANSPORT

    def bind(self, services: Services) -> BoundCheck:  # noqa: ARG002 - the protocol's shape
        """Return a check that passes."""
        return _pass

    def describe(self) -> str:
        """Say so in the matrix."""
        return "public"


@dataclass(frozen=True, slots=True)
class Deferred:
    """The handler decides in its body by `await guard.require(...)`; answering without having done so is 500."""

    @property
    def stage(self) -> Stage:
        """Runs first, and leaves the decision open."""
        return Stage.TRANSPORT

    def bind(self, services: Services) -> BoundCheck:  # noqa: ARG002 - the protocol's shape
        """Return a check that passes."""
        return _pass

    def describe(self) -> str:
        """Say so in the matrix."""
        return "decided in the handler"


public: Final = Policy((Public(),), name="public")
deferred: Final = Policy((Deferred(),), name="deferred")


@dataclass(frozen=True, slots=True)
class AnyOf:
    """`|`: the first branch that passes decides.

    Only branches whose credential was sent are tried; if every tried branch refuses, the problem from the latest
    stage wins, so that 403 beats 401. Each branch works on a copy of the exchange.
    """

    branches: tuple[Policy, ...]

    @classmethod
    def of(cls, *policies: Policy) -> AnyOf:
        """Flatten nested alternatives."""
        branches: list[Policy] = []
        for policy in policies:
            if len(policy.checks) == 1 and isinstance(policy.checks[0], AnyOf):
                branches.extend(policy.checks[0].branches)
            else:
                branches.append(policy)
        return cls(tuple(branches))

    @property
    def stage(self) -> Stage:
        """Where it runs: with identities, which is what branches differ in."""
        return Stage.IDENTITY

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

    def describe(self) -> str:
        """Join the branches' words."""
        return " or ".join(branch.describe() for branch in self.branches)


def _decides(check: Any) -> bool:
    """Whether a check is about who calls, or says openly that this does not matter."""
    if isinstance(check, AnyOf):
        return all(branch.decides for branch in check.branches)
    return isinstance(check, (Public, Deferred)) or _stage_of(check) in _WHO


def _stage_of(check: Any) -> Stage:
    """Return where a check runs. One without a stage is a finding when it is bound, and decides nothing."""
    stage = getattr(check, "stage", None)
    return stage if isinstance(stage, Stage) else Stage.TRANSPORT


def _unfit_for_either(branch: Policy) -> list[str]:
    """Return why a policy cannot be one side of `|`."""
    found: list[str] = []
    if not branch.decides:
        # ``session() | body_limit(...)`` would let everybody in by the other side.
        found.append(f"one side of '|' ({branch.describe()}) does not say who may call: use '&', or say `public`")
    if any(check.stage is Stage.EXECUTION for check in branch.checks):
        # It would answer for the handler before what stands beside the `|` has been asked.
        found.append(f"de-duplication and idempotency go beside '|', not into it: (a | b) & {branch.describe()}")
    return found


def describe(check: Any) -> str:
    """Return a check in words: its own `describe()`, else its class name."""
    method = optional_method(check, "describe")
    words = str(method()) if method is not None and takes(method) else ""
    # A check that says nothing of itself must not vanish from the matrix.
    return words if words.strip() else type(check).__name__


def unfit(policy: Policy, handler: Any, kind: str) -> list[str]:
    """Return why checks of a policy cannot guard a handler, or not together."""
    found: list[str] = []
    for check in policy.find(object):
        try:
            reasons = [call_method(check, "unfit", handler, kind), call_method(check, "unfit_with", policy)]
        except ConfigError as error:
            reasons = list(error.findings)
        found += [str(reason) for reason in reasons if reason is not None]
    return found


def bind_steps(checks: Sequence[Any], services: Services) -> list[tuple[Stage, BoundCheck]]:
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


def _bind_step(check: Any, services: Services) -> tuple[Stage, BoundCheck]:
    """Bind one check. Raises ConfigError, also where it is no check after all."""
    name = type(check).__qualname__
    if not isinstance(check, Check):
        raise ConfigError(_no_policy(check))
    if not isinstance(check.stage, Stage):
        raise ConfigError(f"{name}.stage is {check.stage!r}, not one of routeguard.Stage")
    run: object = check.bind(services)
    if not callable(run):
        raise ConfigError(f"{name}.bind returned {type(run).__name__}, not the function to run for each request")
    return check.stage, run


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


def _no_policy(part: Any) -> str:
    """Say what was given in a policy's place, and where it is a function, that it was not called."""
    name = getattr(part, "__qualname__", None)
    if name is not None and callable(part):
        words = f"{name} is a {'class' if isinstance(part, type) else 'function'}, not a policy"
        if str(getattr(part, "__module__", "")).startswith("routeguard."):
            return f"{words}: did you mean {name.rpartition('.')[2]}(...)?"
        code = getattr(part, "__code__", None)
        place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
        return f"{words}: write @guard(policy) above a handler to guard it, and call what makes a policy{place}"
    return f"{part!r} is neither a policy nor a check"


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
        return Refuse(outcome)
    if isinstance(outcome, Reply):
        return outcome
    raise TypeError(f"a check answered {type(outcome).__name__}; only None, Problem and Reply have a meaning")


async def _pass(exchange: Exchange) -> Outcome:  # noqa: ARG001, RUF029 - the shape of a bound check
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


def _presents(checks: Sequence[Any], services: Services) -> tuple[Callable[[Exchange], bool], ...]:
    """Return what tells whether a branch's credentials were sent. Raises ConfigError."""
    found: list[Callable[[Exchange], bool]] = []
    for check in checks:
        sent = call_method(check, "presents_for", services)
        if sent is None:
            sent = optional_method(check, "presents")
        if sent is not None:
            if not callable(sent):
                raise ConfigError(f"{type(check).__qualname__}.presents_for returned {sent!r}, not a function")
            require_arguments(sent, check, "presents", None)
            found.append(cast("Callable[[Exchange], bool]", sent))
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
