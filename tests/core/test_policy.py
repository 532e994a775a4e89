"""Policies are values: what they decide needs no HTTP, and follows from a few laws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.decision import ALLOW, Refuse, Reply
from routeguard.core.errors import ConfigError
from routeguard.core.exchange import Exchange
from routeguard.core.policy import AnyOf, Check, Policy, Stage, decision_of, deferred, describe, public
from routeguard.core.problem import Problem, ProblemType
from routeguard.core.request import RequestView
from routeguard.core.services import Services

COVERS = ("core/decision", "core/errors", "core/exchange")

pytestmark = pytest.mark.anyio


@dataclass(frozen=True, slots=True)
class Fixed(Check):
    """A check that always answers the same, and leaves a trace of having run."""

    stage: Stage
    refuses: bool = False
    name: str = "a"
    sent: bool = True

    def bind(self, services: Services) -> Any:
        problem = ProblemType(f"p-{self.stage.name}-{self.name}", 400 + self.stage, "No")()

        async def run(exchange: Exchange) -> Problem | None:
            exchange.facts[self] = len(exchange.facts)
            exchange.add_header(b"x-ran", f"{self.stage.name}-{self.name}".encode())
            return problem if self.refuses else None

        return run

    def presents(self, services: Services) -> Any:
        return lambda exchange: self.sent


@dataclass(frozen=True, slots=True)
class Answers(Check):
    """A check that answers whatever it was told to."""

    answer: Any = field(hash=False)
    stage: Stage = Stage.ACCESS

    def bind(self, services: Services) -> Any:
        async def run(exchange: Exchange) -> Any:
            return self.answer

        return run


@dataclass(frozen=True, slots=True)
class Broken(Check):
    """A check that cannot be bound."""

    finding: str
    stage: Stage = Stage.ACCESS

    def bind(self, services: Services) -> Any:
        raise ConfigError([self.finding, f"{self.finding} again"])


CHECKS = st.builds(Fixed, st.sampled_from(Stage), st.booleans(), st.sampled_from("abc"), st.booleans())
POLICIES = st.lists(CHECKS, min_size=1, max_size=6).map(lambda checks: Policy.of(*checks))
# What may stand on one side of `|`: it says who may call, and nothing in it answers for the handler.
WHO = st.builds(Fixed, st.sampled_from([Stage.IDENTITY, Stage.ACCESS]), st.booleans(), st.just("w"), st.booleans())
EARLY = st.builds(
    Fixed,
    st.sampled_from([stage for stage in Stage if stage is not Stage.EXECUTION]),
    st.booleans(),
    st.sampled_from("abc"),
    st.booleans(),
)
SIDES = st.tuples(WHO, st.lists(EARLY, max_size=5)).map(lambda found: Policy.of(found[0], *found[1]))


def exchange() -> Exchange:
    return Exchange(RequestView.from_scope({"type": "http", "method": "GET", "path": "/", "headers": []}))


async def ask(policy: Policy) -> tuple[Any, list[str]]:
    """Return the outcome, and which checks left a trace, in order."""
    made = exchange()
    outcome = await policy.bind(Services())(made)
    return outcome, [value.decode() for _, value in made.effects]


# -- and -------------------------------------------------------------------------------------------------------------


@given(st.lists(CHECKS, max_size=8))
async def test_all_must_pass_and_the_earliest_stage_refuses(checks: list[Fixed]) -> None:
    outcome, ran = await ask(Policy.of(*checks))
    expected = sorted(dict.fromkeys(checks), key=lambda check: check.stage)
    refusing = [check for check in expected if check.refuses]
    if not refusing:
        assert outcome is None
        assert len(ran) == len(expected)
    else:
        assert outcome.status == 400 + refusing[0].stage
        assert ran[-1] == f"{refusing[0].stage.name}-{refusing[0].name}"
        assert len(ran) == expected.index(refusing[0]) + 1


@given(st.lists(CHECKS, max_size=8, unique_by=lambda check: check.stage), st.randoms())
async def test_the_order_of_writing_does_not_matter(checks: list[Fixed], random: Any) -> None:
    shuffled = checks.copy()
    random.shuffle(shuffled)
    assert await ask(Policy.of(*checks)) == await ask(Policy.of(*shuffled))


@given(POLICIES, POLICIES, POLICIES)
def test_and_is_associative(a: Policy, b: Policy, c: Policy) -> None:
    assert (a & b) & c == a & (b & c)
    assert (a & b).checks == a.checks + b.checks


@given(POLICIES)
async def test_and_twice_is_once(policy: Policy) -> None:
    assert await ask(policy & policy) == await ask(policy)
    assert (policy & policy).ordered() == policy.ordered()


@given(POLICIES, POLICIES)
async def test_adding_a_check_never_opens(a: Policy, b: Policy) -> None:
    alone, _ = await ask(a)
    both, _ = await ask(a & b)
    assert alone is None or both is not None


# -- or --------------------------------------------------------------------------------------------------------------


@given(st.lists(SIDES, min_size=2, max_size=4))
async def test_or_follows_its_rule(branches: list[Policy]) -> None:
    """Branches without their credential are skipped; the first that passes decides; else the latest stage refuses."""
    policy = branches[0]
    for branch in branches[1:]:
        policy = policy | branch
    outcome, ran = await ask(policy)
    tried = [branch for branch in branches if all(check.sent for check in branch.find(Fixed))] or branches[:1]
    answers = [await ask(branch) for branch in tried]
    passing = [trace for answer, trace in answers if answer is None]
    if passing:
        assert outcome is None
        # A refused branch leaves no trace.
        assert ran == passing[0]
    else:
        assert outcome.status == max(answer.status for answer, _ in answers)
        assert ran == []


@given(POLICIES, POLICIES, POLICIES)
def test_or_is_flat_and_associative(a: Policy, b: Policy, c: Policy) -> None:
    assert (a | b) | c == a | (b | c)
    (any_of,) = (a | b | c).checks
    assert any_of == AnyOf((a, b, c))


@given(SIDES)
async def test_or_itself_is_itself(policy: Policy) -> None:
    alone, _ = await ask(policy)
    twice, _ = await ask(policy | policy)
    assert (alone is None) == (twice is None)
    assert alone is None or alone.status == twice.status


async def test_a_later_no_beats_an_earlier_one() -> None:
    """403 beats 401: the caller did prove who he is."""
    unknown = Policy.of(Fixed(Stage.IDENTITY, refuses=True))
    denied = Policy.of(Fixed(Stage.IDENTITY), Fixed(Stage.ACCESS, refuses=True))
    for policy in (unknown | denied, denied | unknown):
        outcome, _ = await ask(policy)
        assert outcome.status == 400 + Stage.ACCESS


async def test_a_reply_of_a_branch_is_an_answer() -> None:
    reply = Reply(204)
    outcome, _ = await ask(Policy.of(Fixed(Stage.IDENTITY, refuses=True)) | Policy.of(Answers(reply)))
    assert outcome is reply


async def test_branches_do_not_see_each_other() -> None:
    @dataclass(frozen=True)
    class Claims(Check):
        stage = Stage.IDENTITY

        def bind(self, services: Services) -> Any:
            async def run(exchange: Exchange) -> Any:
                exchange.principal = exchange.resource = "somebody"  # type: ignore[assignment]
                exchange.body_limit = 1
                return ProblemType("no", 401, "No")()

            return run

    made = exchange()
    made.body_limit = 100
    policy = Policy.of(Claims()) | Policy.of(Fixed(Stage.ACCESS))
    assert await policy.bind(Services())(made) is None
    assert (made.principal, made.resource, made.body_limit) == (None, None, 100)


def test_an_empty_side_is_a_finding() -> None:
    """AZ-16: `policy | Policy()` would let everybody in."""
    with pytest.raises(ConfigError, match="does not say who may call"):
        (Policy() | public).bind(Services())


@pytest.mark.parametrize("stage", [Stage.RESPONSE, Stage.TRANSPORT, Stage.NETWORK, Stage.FORGERY, Stage.QUOTA])
def test_a_side_that_says_nothing_of_who_is_a_finding(stage: Stage) -> None:
    """AZ-16: ``session() | body_limit(...)`` would open the route by its other side."""
    limit = Policy.of(Fixed(stage))
    assert not limit.decides
    for policy in (public | limit, limit | public):
        assert not policy.decides
        with pytest.raises(ConfigError, match="does not say who may call"):
            policy.bind(Services())


def test_what_answers_for_the_handler_stands_beside_an_or() -> None:
    """DDP-01: inside, it would replay an answer before what stands beside the `|` was asked."""
    with pytest.raises(ConfigError, match=r"beside '\|'"):
        ((public & Policy.of(Fixed(Stage.EXECUTION))) | public).bind(Services())
    ((public | public) & Policy.of(Fixed(Stage.EXECUTION))).bind(Services())


@pytest.mark.parametrize("combine", [lambda a, b: a and b, lambda a, b: a or b, lambda a, _: not a])
def test_words_for_signs_are_an_error(combine: Any) -> None:
    """`session and public` would be `public`."""
    with pytest.raises(TypeError, match="&"):
        combine(Policy.of(Fixed(Stage.IDENTITY)), public)


# -- values ----------------------------------------------------------------------------------------------------------


@given(POLICIES, POLICIES)
def test_equal_policies_are_equal(a: Policy, b: Policy) -> None:
    assert (a == b) == (a.checks == b.checks)
    assert hash(a & b) == hash(a & b)
    assert Policy(a.checks, "named") == a


@pytest.mark.parametrize("part", [None, True, "session", 1, Fixed, lambda exchange: None, Services(), [], object()])
def test_what_is_no_check_is_refused(part: Any) -> None:
    """AZ-16."""
    with pytest.raises(ConfigError):
        Policy.of(part)
    with pytest.raises(ConfigError):
        public & part
    with pytest.raises(ConfigError):
        public | part


def test_a_check_stands_where_a_policy_does() -> None:
    check = Fixed(Stage.ACCESS)
    assert isinstance(check, Check)
    assert (public & check).checks == (*public.checks, check)
    assert (check & public).checks == (check, *public.checks)
    assert (check | public) == (Policy.of(check) | public)


def test_all_findings_come_at_once() -> None:
    policy = Policy.of(Broken("one"), Fixed(Stage.ACCESS), Broken("two")) & (Policy.of(Broken("three")) | public)
    with pytest.raises(ConfigError) as caught:
        policy.bind(Services())
    assert sorted(caught.value.findings) == ["one", "one again", "three", "three again", "two", "two again"]


def test_words() -> None:
    assert public.describe() == "public"
    assert deferred.describe() == "decided in the handler"
    assert Policy().describe() == "public"
    assert describe(Fixed(Stage.ACCESS)) == "Fixed"
    assert (public | deferred).describe() == "public or decided in the handler"


@given(st.lists(CHECKS, max_size=4), st.lists(POLICIES, min_size=2, max_size=3))
def test_find_looks_into_branches(checks: list[Fixed], branches: list[Policy]) -> None:
    policy = Policy.of(*checks, Policy((AnyOf.of(*branches),)))
    assert len(list(policy.find(Fixed))) == len(checks) + sum(len(branch.checks) for branch in branches)
    assert list(policy.find(Broken)) == []


# -- decisions -------------------------------------------------------------------------------------------------------


async def test_a_dry_run_needs_no_server() -> None:
    """What would be refused is known from the value alone."""
    problem = ProblemType("no", 403, "No")()
    for answer, decision in ((None, ALLOW), (problem, Refuse(problem)), (Reply(204), Reply(204))):
        outcome, _ = await ask(Policy.of(Answers(answer)))
        assert decision_of(outcome) == decision


@pytest.mark.parametrize("answer", [True, False, 0, 1, "", "ok", (), [], object(), ALLOW, Refuse])
async def test_any_other_answer_is_a_fault(answer: Any) -> None:
    """AZ-16: a check that answers True has not passed."""
    outcome, _ = await ask(Policy.of(Answers(answer)))
    with pytest.raises(TypeError):
        decision_of(outcome)
    with pytest.raises(TypeError):
        await ask(Policy.of(Answers(answer)) | Policy.of(Answers(answer)))


def test_stages_are_in_order() -> None:
    assert [stage.name for stage in sorted(Stage)] == [
        "RESPONSE",
        "TRANSPORT",
        "NETWORK",
        "IDENTITY",
        "FORGERY",
        "ASSURANCE",
        "ACCESS",
        "QUOTA",
        "RESOURCE",
        "EXECUTION",
    ]
