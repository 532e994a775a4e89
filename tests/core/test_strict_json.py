"""Strict JSON: one meaning or none."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routeguard.core.strict_json import JSONRefused, load_json
from tests.steady import work_of

REFUSED = {
    "BODY-08 duplicate member": b'{"role":"user","role":"admin"}',
    "BODY-08 duplicate by escape": b'{"role":1,"r\\u006fle":2}',
    "BODY-08 duplicate deep inside": b'[[{"a":{"b":1,"b":2}}]]',
    "BODY-09 NaN": b"NaN",
    "BODY-09 NaN inside": b'{"a":[NaN]}',
    "BODY-09 Infinity": b"[Infinity]",
    "BODY-09 minus Infinity": b"[-Infinity]",
    "BODY-09 nan": b"[nan]",
    "BODY-10 10 000 digits": b"1" * 10_000,
    "BODY-10 minus 10 000 digits": b"[-" + b"9" * 10_000 + b"]",
    "BODY-10 65 digits": b"1" * 65,
    "BODY-10 minus 65 digits": b"-" + b"1" * 65,
    "BODY-10 1e400": b"1e400",
    "BODY-10 -1e400": b'{"a":-1e400}',
    "BODY-10 long and huge": b"1" * 400 + b".5",
    "BODY-10 hexadecimal": b"0x10",
    "BODY-11 lone high surrogate": b'"\\ud800"',
    "BODY-11 lone low surrogate": b'["\\uDFFF"]',
    "BODY-11 wrong order": b'["\\ude00\\ud83d"]',
    "BODY-11 in a name": b'{"\\ud800":1}',
    "BODY-11 in a name, deep": b'[{"a":[{"x\\uD834y":1}]}]',
    "BODY-11 encoded surrogate": b'"\xed\xa0\x80"',
    "BODY-22 two values": b"{}{}",
    "BODY-22 two numbers": b"1 2",
    "BODY-22 line comment": b"{} // no",
    "BODY-22 block comment": b"[1/*no*/]",
    "BODY-22 trailing comma, array": b"[1,]",
    "BODY-22 trailing comma, object": b'{"a":1,}',
    "BODY-22 single quotes": b"{'a':1}",
    "BODY-26 nothing": b"",
    "BODY-26 white space only": b" \n",
    "BODY-26 BOM": b'\xef\xbb\xbf{"a":1}',
    "BODY-26 UTF-16 LE": '{"a":1}'.encode("utf-16-le"),
    "BODY-26 UTF-16 with BOM": "[]".encode("utf-16"),
    "BODY-26 UTF-32": "[]".encode("utf-32"),
    "BODY-26 latin-1": b'["\xe9"]',
    "BODY-26 overlong": b'["\xc0\xaf"]',
    "BODY-26 over U+10FFFF": b'["\xf4\xbf\xbf\xbf"]',
    "BODY-26 cut short": b'["\xe0\xff"]',
    "BODY-26 continuation alone": b'["\x81"]',
    "BODY-26 open array": b"[1",
    "BODY-26 open object": b'{"a":1',
    "BODY-26 open string": b'["a',
    "BODY-26 open escape": b'["\\',
    "BODY-26 closed twice": b"[1]]",
    "BODY-26 wrong bracket": b"[1}",
    "BODY-26 comma first": b"[,1]",
    "BODY-26 two commas": b"[1,,2]",
    "BODY-26 only a comma": b"[,]",
    "BODY-26 no comma": b"[1 true]",
    "BODY-26 colon in array": b'["a":1]',
    "BODY-26 two colons": b'{"a"::1}',
    "BODY-26 no colon": b'{"a" 1}',
    "BODY-26 comma for colon": b'{"a",1}',
    "BODY-26 no value": b'{"a":}',
    "BODY-26 no name": b"{:1}",
    "BODY-26 unquoted name": b"{a:1}",
    "BODY-26 number as name": b"{1:1}",
    "BODY-26 null as name": b"{null:1}",
    "BODY-26 garbage after name": b'{"a"x:1}',
    "BODY-26 leading zero": b"[012]",
    "BODY-26 minus leading zero": b"[-012]",
    "BODY-26 two zeros": b"[00]",
    "BODY-26 plus": b"[+1]",
    "BODY-26 two minuses": b"[--1]",
    "BODY-26 minus alone": b"[-]",
    "BODY-26 minus space": b"[- 1]",
    "BODY-26 dot first": b"[.5]",
    "BODY-26 dot last": b"[1.]",
    "BODY-26 minus dot": b"[-.5]",
    "BODY-26 dot e": b"[1.e1]",
    "BODY-26 e alone": b"[1e]",
    "BODY-26 e plus": b"[1e+]",
    "BODY-26 E minus": b"[0E-]",
    "BODY-26 two signs": b"[1e+-2]",
    "BODY-26 two dots": b"[1.2.3]",
    "BODY-26 underscore": b"[1_000]",
    "BODY-26 letters after number": b"[1a]",
    "BODY-26 expression": b"[1+2]",
    "BODY-26 full-width digit": "[１]".encode(),
    "BODY-26 Inf": b"[Inf]",
    "BODY-26 True": b"[True]",
    "BODY-26 TRUE": b"[TRUE]",
    "BODY-26 tru": b"[tru]",
    "BODY-26 nul": b"nul",
    "BODY-26 undefined": b"undefined",
    "BODY-26 bad escape": b'["\\x41"]',
    "BODY-26 escaped apostrophe": b'["\\\'"]',
    "BODY-26 escape upper case": b'["\\U0041"]',
    "BODY-26 short unicode escape": b'["\\u00"]',
    "BODY-26 no hexadecimal": b'["\\u00zz"]',
    "BODY-26 sign in escape": b'["\\u+041"]',
    "BODY-26 escaped NUL byte": b'["\\\x00"]',
    "BODY-26 half pair then cut": b'["\\uD800\\u"]',
    "BODY-26 line feed in string": b'["a\nb"]',
    "BODY-26 tab in string": b'["\t"]',
    "BODY-26 NUL in string": b'["a\x00b"]',
    "BODY-26 escape in string 0x1f": b'["\x1f"]',
    "BODY-26 NUL outside": b"[1]\x00",
    "BODY-26 form feed": b"[\x0c]",
    "BODY-26 vertical tab": b"[1\x0b]",
    "BODY-26 NBSP": b"[\xc2\xa0]",
    "BODY-26 U+2060": "[\u2060]".encode(),
    "BODY-26 BOM inside": b"[\xef\xbb\xbf1]",
    "BODY-26 unquoted string": b"[a]",
    "BODY-26 star": b"*",
    "BODY-26 angle brackets": b"<null>",
    "BODY-26 ellipsis": b"[...]",
    "BODY-26 lone close": b"]",
    "BODY-26 lone quote": b'"',
    "BODY-26 65 arrays": b"[" * 65 + b"]" * 65,
    "BODY-26 100 000 open arrays": b"[" * 100_000,
    "BODY-26 50 000 open objects": b'[{"":' * 50_000,
    "BODY-26 deep after a string of brackets": b'["[[[[\\"[",' + b"[" * 64 + b"]" * 65,
}

ACCEPTED: dict[str, tuple[bytes, object]] = {
    "empty array": (b"[]", []),
    "empty object": (b"{}", {}),
    "white space": (b" \t\r\n[ 1 , 2 ]\n", [1, 2]),
    "number alone": (b"42", 42),
    "string alone": (b'"x"', "x"),
    "true": (b"true", True),
    "null": (b"[null,false]", [None, False]),
    "minus zero": (b"[-0]", [0]),
    "0e1": (b"[0e1,0e+1,1E22,1.5e-2]", [0.0, 0.0, 1e22, 0.015]),
    "64 digits": (b"1" * 64, int("1" * 64)),
    "64 digits and a sign": (b"-" + b"1" * 64, -int("1" * 64)),
    "largest double": (b"1.7976931348623157e308", 1.7976931348623157e308),
    "underflow": (b"1e-400", 0.0),
    "close to zero": (b"[-0." + b"0" * 76 + b"1]", [-1e-77]),
    "empty name": (b'{"":0}', {"": 0}),
    "same names in two objects": (b'[{"a":1},{"a":2}]', [{"a": 1}, {"a": 2}]),
    "escapes": (b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'),
    "surrogate pair": (b'"\\ud83d\\ude39\\uD834\\udd1e"', "\U0001f639\U0001d11e"),
    "escaped backslash before u": (b'"\\\\ud800"', "\\ud800"),
    "NUL by escape": (b'{"a\\u0000b":"\\u0000"}', {"a\0b": "\0"}),
    "non-characters": (b'"\\uFDD0\xef\xbf\xbf"', "\ufdd0\uffff"),
    "U+2028 and DEL": ('"\u2028\x7f"'.encode(), "\u2028\x7f"),
    "UTF-8": ('{"π":"€𝄞"}'.encode(), {"π": "€𝄞"}),
    "64 arrays": (b"[" * 64 + b"]" * 64, None),
    "many brackets, flat": (b"[" + b"[]," * 500 + b"{}]", [[]] * 500 + [{}]),
    "brackets in strings": (b'["' + b"[{" * 500 + b'","\\"' + b"[" * 100 + b'"]', ["[{" * 500, '"' + "[" * 100]),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_refuses(data: bytes) -> None:
    with pytest.raises(JSONRefused) as caught:
        load_json(data)
    # Part of the contract: a fixed sentence, short, without the input.
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 60
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(("data", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepts(data: bytes, value: object) -> None:
    found = load_json(data)
    assert value is None or found == value


def test_zero_keeps_its_type() -> None:
    assert type(load_json(b"1")) is int
    assert type(load_json(b"1.0")) is float
    assert load_json(b"true") is True


def test_depth_is_the_callers_choice() -> None:
    assert load_json(b'[{"a":[]}]', max_depth=3) == [{"a": []}]
    with pytest.raises(JSONRefused, match="deeply"):
        load_json(b'[{"a":[]}]', max_depth=2)
    with pytest.raises(JSONRefused, match="deeply"):
        load_json(b"[" * 200_000, max_depth=10**9)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)


@given(VALUES, st.booleans())
def test_what_json_writes_comes_back(value: object, ascii_only: bool) -> None:
    assert load_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=200))
def test_agrees_with_the_standard_library_or_is_stricter(data: bytes) -> None:
    try:
        found = load_json(data)
    except JSONRefused:
        return
    assert found == json.loads(data.decode())


SIZE = 64 * 1024
HOSTILE = {
    "open arrays": b"[" * SIZE,
    "flat arrays": b"[" + b"[]," * (SIZE // 3) + b"1]",
    "empty strings": b'["' + b'","' * (SIZE // 3) + b'"]',
    "backslashes, open": b"[" * 70 + b'"' + b"\\" * SIZE,
    "escaped quotes, open": b"[" * 70 + b'"' + b'\\"' * (SIZE // 2),
    "surrogates": b'["' + b"\\ud83d\\ude00" * (SIZE // 12) + b'"]',
    "escaped members": b"{" + b",".join(b'"\\u0061%d":1' % n for n in range(SIZE // 14)) + b"}",
    "one long number": b"1" * SIZE,
    "one long fraction": b"0." + b"1" * SIZE,
    "numbers": b"[" + b"1," * (SIZE // 2) + b"1]",
    "fractions": b"[" + b"1.5," * (SIZE // 4) + b"1]",
    "objects": b"[" + b'{"a":1},' * (SIZE // 8) + b"1]",
    "white space": b" " * SIZE + b"1",
    "white space inside": b"[" + b" " * SIZE + b"1]",
    "constants": b"[" + b"NaN," * (SIZE // 4) + b"1]",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_64_kilobytes_take_at_most_50_milliseconds(data: bytes) -> None:
    """INJ-04: linear in the input."""

    def read() -> None:
        with contextlib.suppress(JSONRefused):
            load_json(data)

    assert work_of(read, tries=5) < 0.05
