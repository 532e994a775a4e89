"""Bodies: media types, bounds, strictness, every error at once. Attack ids of surface BODY and CSRF."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

import msgspec
import pytest
from starlette.requests import Request

from routeguard.core.errors import ProblemError
from routeguard.core.exchange import SCOPE_KEY, Exchange
from routeguard.core.request import RequestView
from routeguard.foundation.web.body import TypedForm, media_type_of, read
from tests.steady import work_within

COVERS = ("core/media_types", "foundation/web/models")

pytestmark = pytest.mark.anyio

JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"application/x-www-form-urlencoded")


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    email: str
    amount: int
    gift: bool = False
    size: Literal["s", "m"] = "s"
    tags: tuple[str, ...] = ()


class Point(msgspec.Struct, frozen=True, rename="camel"):
    x_axis: int
    label: str | None = None


def request_of(*chunks: bytes, headers: list[tuple[bytes, bytes]], end: str = "http.request") -> Request:
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    scope[SCOPE_KEY] = Exchange(RequestView.from_scope(scope))
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": end})

    async def receive() -> Any:
        return messages.pop(0)

    return Request(scope, receive)


async def refusal(body: bytes, *headers: tuple[bytes, bytes], kind: type[Any] = Order, **more: Any) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await read(request_of(body, headers=list(headers or [JSON])), kind, **more)
    return caught.value


def errors_of(error: ProblemError) -> dict[str, str]:
    assert error.problem.status == 422
    return {item["pointer"]: item["detail"] for item in error.problem.members["errors"]}


GOOD = b'{"email":"a@example.org","amount":3}'


async def test_json_in_chunks_becomes_the_dataclass() -> None:
    got = await read(request_of(GOOD[:5], GOOD[5:], headers=[JSON]), Order)
    assert got == Order("a@example.org", 3)


async def test_a_struct_is_read_by_its_names_on_the_wire() -> None:
    assert await read(request_of(b'{"xAxis":1,"label":null}', headers=[JSON]), Point) == Point(1)
    assert set(errors_of(await refusal(b'{"x_axis":1}', kind=Point))) == {"/xAxis", "/x_axis"}


async def test_a_form_is_read_and_its_other_fields_ignored() -> None:
    got = await read(request_of(b"email=a%40example.org&amount=3&next=%2Fx&button=", headers=[FORM]), Order)
    assert got == Order("a@example.org", 3)


async def test_a_form_is_remembered_without_its_secrets() -> None:
    @dataclasses.dataclass
    class SignIn:
        email: str
        password: str

    request = request_of(b"email=a%40b.c&password=secret-words&next=%2Fx&code=1", headers=[FORM])
    await read(request, SignIn)
    assert request.scope[SCOPE_KEY].facts[TypedForm].fields == {"email": "a@b.c", "next": "/x"}


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b'application/json;charset="UTF-8"',
        b"application/json\t;\tcharset=utf-8",
        b"application/json ;",
        b" application/json",
    ],
)
async def test_one_media_type_in_any_spelling_is_json(value: bytes) -> None:
    """BODY-17: tab, odd case, space before the semicolon."""
    assert await read(request_of(GOOD, headers=[(b"content-type", value)]), Order) == Order("a@example.org", 3)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([b"text/plain"], id="CSRF-08"),
        pytest.param([b"text/plain; x=application/json"], id="CSRF-08-parameter"),
        pytest.param([], id="CSRF-10-none"),
        pytest.param([b""], id="CSRF-10-empty"),
        pytest.param([b"application/json, text/plain"], id="BODY-17-list"),
        pytest.param([b"application/json", b"application/json"], id="BODY-17-two"),
        pytest.param([b"application/json\x0b"], id="BODY-17-vertical-tab"),
        pytest.param([b"application/json\xa0"], id="BODY-17-nbsp"),
        pytest.param([b"application/jsonx"], id="BODY-17-longer"),
        pytest.param([b"application/json charset=utf-8"], id="BODY-17-no-semicolon"),
        pytest.param([b"application/json; charset=utf-16"], id="other-charset"),
        pytest.param([b"multipart/form-data; boundary=x"], id="BODY-15-multipart"),
    ],
)
async def test_another_media_type_is_415(values: list[bytes]) -> None:
    error = await refusal(GOOD, *[(b"content-type", value) for value in values] or [(b"x-none", b"")])
    assert error.problem.status == 415


def test_no_media_type_is_told_from_a_bad_one() -> None:
    assert media_type_of([]) is None
    assert media_type_of([b"a/b", b"a/b"]) == ""


@pytest.mark.parametrize("coding", [b"gzip", b"gzip,gzip", b"br", b"deflate", b"x-unknown", b"identity, gzip"])
async def test_a_content_coding_is_415(coding: bytes) -> None:
    """BODY-05, BODY-06."""
    error = await refusal(GOOD, JSON, (b"content-encoding", coding))
    assert error.problem.status == 415
    assert ("accept-encoding", "identity") in error.problem.headers


async def test_identity_is_no_coding() -> None:
    got = await read(request_of(GOOD, headers=[JSON, (b"content-encoding", b"Identity")]), Order)
    assert got == Order("a@example.org", 3)


async def test_a_body_over_the_limit_is_413_even_unannounced() -> None:
    """BODY-01 in chunks: what arrives is counted."""
    with pytest.raises(ProblemError) as caught:
        await read(request_of(b"x" * 40, b"x" * 40, headers=[JSON]), Order, limit=64)
    assert caught.value.problem.status == 413


async def test_depth_over_the_limit_is_400() -> None:
    """BODY-26: sending less would not help where the beginning is nested too deep already."""
    deep, wide = b"[" * 65, b'"' + b"[" * 65 + b'",' + b"[],{}," * 50
    for body, kind, status in (
        ([deep], JSON, 400),
        ([deep[:40], deep[40:]], JSON, 400),
        ([b'{"":' * 10, b'[{"":' * 60], JSON, 400),
        ([b"[" * 64], JSON, 413),
        ([b"[" + wide], JSON, 413),
        ([b'"' + deep], JSON, 413),
        ([deep], FORM, 413),
    ):
        with pytest.raises(ProblemError) as caught:
            await read(request_of(*body, headers=[kind]), Order, limit=60)
        assert caught.value.problem.status == status, body


async def test_a_client_that_leaves_is_no_fault_of_ours() -> None:
    with pytest.raises(ProblemError) as caught:
        await read(request_of(b'{"em', headers=[JSON], end="http.disconnect"), Order)
    assert caught.value.problem.status == 400


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"email":"a","email":"b","amount":1}', id="BODY-08"),
        pytest.param(b'{"email":"a","amount":NaN}', id="BODY-09-nan"),
        pytest.param(b'{"email":"a","amount":-Infinity}', id="BODY-09-infinity"),
        pytest.param(b'{"email":"a","amount":' + b"9" * 10_000 + b"}", id="BODY-10-digits"),
        pytest.param(b'{"email":"a","amount":1e400}', id="BODY-10-exponent"),
        pytest.param(b'{"email":"a","amount":0x10}', id="BODY-10-hex"),
        pytest.param(b'{"email":"\\ud800","amount":1}', id="BODY-11-value"),
        pytest.param(b'{"email":"a","amount":1,"\\ud800":1}', id="BODY-11-key"),
        pytest.param(b"{}{}", id="BODY-22-two-values"),
        pytest.param(b'{"email":"a",}', id="BODY-22-trailing-comma"),
        pytest.param(b"{'email':'a'}", id="BODY-22-single-quotes"),
        pytest.param(b'{"email":"a"}//x', id="BODY-22-comment"),
        pytest.param(b"\xff\xfe", id="not-utf-8"),
        pytest.param(b"[" * 10_000, id="deep"),
    ],
)
async def test_json_of_two_meanings_or_none_is_400(body: bytes) -> None:
    assert (await refusal(body)).problem.status == 400


@pytest.mark.parametrize("body", [b"[]", b'""', b"1", b"null", b"true"])
async def test_a_top_level_that_is_no_object_is_422(body: bytes) -> None:
    """BODY-14."""
    assert errors_of(await refusal(body)) == {"": "Expected a JSON object."}


@pytest.mark.parametrize("field", ["email", "size", "tags"])
async def test_nul_in_a_string_is_422(field: str) -> None:
    """BODY-12: also inside a list, also in a form."""
    value: Any = ["a\0"] if field == "tags" else "a\0"
    data = {"email": "a", "amount": 1, field: value}
    assert "/" + field in errors_of(await refusal(json.dumps(data).encode()))
    assert "/email" in errors_of(await refusal(b"email=%00&amount=1", FORM))


@pytest.mark.parametrize("amount", ['"1"', "true", "[1]", "1.5", "null", "{}"], ids=lambda text: f"BODY-24-{text}")
async def test_types_are_strict(amount: str) -> None:
    assert set(errors_of(await refusal(f'{{"email":"a","amount":{amount}}}'.encode()))) == {"/amount"}


@pytest.mark.parametrize("gift", ['"true"', "1", "[true]", '"1"'], ids=lambda text: f"BODY-24-flag-{text}")
async def test_flags_are_strict(gift: str) -> None:
    assert set(errors_of(await refusal(f'{{"email":"a","amount":1,"gift":{gift}}}'.encode()))) == {"/gift"}


async def test_every_error_is_listed_and_no_value_repeated() -> None:
    error = await refusal(b'{"amount":"secret-words","size":"secret-words","tags":["a",7],"role":"secret-words"}')
    assert set(errors_of(error)) == {"/email", "/amount", "/size", "/tags", "/role"}
    assert "secret-words" not in json.dumps(error.problem.body())


async def test_a_strange_member_name_is_not_repeated() -> None:
    error = await refusal(b'{"email":"a","amount":1,"<script>":1}')
    assert set(errors_of(error)) == {""}
    assert "script" not in json.dumps(error.problem.body())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"email=a&email=b&amount=1", 400),
        (b"email=%ff&amount=1", 400),
        (b"&".join(b"a%d=1" % n for n in range(100)), 400),
        (b"email=a", 422),
        (b"email=a&amount=one", 422),
        (b"", 422),
    ],
)
async def test_a_bad_form_is_refused(body: bytes, status: int) -> None:
    assert (await refusal(body, FORM)).problem.status == status


async def test_an_empty_json_body_lacks_its_fields() -> None:
    assert set(errors_of(await refusal(b""))) == {"/email", "/amount"}


@pytest.mark.parametrize(
    "value", [b"a/b" + b";  " * 10_000 + b"!", b"a/b" + b";  " * 20 + b"!", b"a/b; " + b"a=b;" * 10_000 + b'"']
)
def test_a_long_media_type_takes_no_time(value: bytes):
    """INJ-04"""
    with work_within(0.5):
        assert media_type_of([value]) == ""


@pytest.mark.parametrize("value", [b"text/html;;", b'text/html ; ;a=b;\t;c="d"', b"text/html;charset=utf-8; ;"])
def test_empty_parameters_of_a_media_type_are_read_over(value: bytes):
    assert media_type_of([value]) == "text/html"


async def test_of_many_unknown_members_a_few_are_listed():
    """No request is answered by many times its size."""
    body = json.dumps({"email": "a@b.cd", "amount": 1} | {f"a{number}": 0 for number in range(5000)}).encode()
    error = await refusal(body)
    assert len(error.problem.members["errors"]) == 20
    assert all(item["detail"] == "This field is not known." for item in error.problem.members["errors"])
