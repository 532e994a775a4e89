"""The house rules a machine can check: names, sizes, what may be imported and called, and what is exported."""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

import routeguard

SOURCE = Path(routeguard.__file__).parent
FILES = {str(path.relative_to(SOURCE)): ast.parse(path.read_text("utf-8")) for path in SOURCE.rglob("*.py")}
# Where code that is not ours is called, and what it raises must become a refusal or a retry: nowhere else.
BROAD = {
    "protection/guard/decider.py",
    "protection/guard/edge.py",
    "protection/guard/matrix.py",
    "protection/guard/refusals.py",
    "identity/sessions/checks.py",
    "foundation/invalidation/feed.py",
    "core/overrides.py",
    "core/periodic.py",
    "foundation/db/outbox.py",
    "foundation/db/sqlite_thread.py",
}
# The words the glossary has another word for (docs/explanation/glossary.md).
WRONG = re.compile(
    r"(?i)(log_?in|log_?out|log_?off|visitor|canary|2fa|two_factor|sudo|backup_code|scratch_code|temp_link|"
    r"limiter|tenant|workspace|payload_limit|authenticator_app|privilege_level|public_token)"
)
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
# An f-string is one token up to Python 3.11, and several from then on.
TEXT = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


def everything(kind):
    for file, tree in FILES.items():
        yield from ((file, node) for node in ast.walk(tree) if isinstance(node, kind))


def exported():
    return [node.asname for node in ast.walk(FILES["__init__.py"]) if isinstance(node, ast.alias) and node.asname]


def test_no_name_uses_a_word_the_glossary_replaces():
    names = [(file, node.name) for file, node in everything(FUNCTION | ast.ClassDef)]
    names += [(file, node.arg) for file, node in everything(ast.arg)] + [(file, file) for file in FILES]
    assert [f"{file}: {name}" for file, name in names if WRONG.search(name)] == []


def test_functions_and_files_stay_small_enough_to_hold():
    long = [
        f"{file}:{node.lineno} {node.name} has {lines(node)} lines"
        for file, node in everything(FUNCTION)
        if lines(node) > 40
    ]
    # A migration is a list of statements that is never changed again; to split it would not make it clearer.
    long = [line for line in long if "/migrations/" not in line.partition(":")[0]]
    long += [
        f"{file} has {count} lines" for file in FILES if (count := len((SOURCE / file).read_text().splitlines())) > 400
    ]
    assert long == []


def test_only_the_callers_of_foreign_code_catch_whatever_comes():
    broad = [
        f"{file}:{node.lineno}" for file, node in everything(ast.ExceptHandler) if file not in BROAD and is_broad(node)
    ]
    assert broad == []


def test_few_begin_a_task_by_themselves():
    """Each has to be ended by its service, also when its event loop ended first: SingleFlight and Periodic do that."""
    begun = re.compile(r"\b(create_task|ensure_future|shield)$")
    found = {file for file, node in everything(ast.Call) if begun.search(ast.unparse(node.func))}
    assert found == {
        "client/aio.py",
        "core/periodic.py",
        "core/services.py",
        "core/single_flight.py",
        "core/tasks.py",
        "foundation/db/outbox.py",
        "protection/guard/watch.py",
        "protection/traffic/leases.py",
    }


def test_time_comes_from_the_clock():
    forbidden = {"time.time", "datetime.now", "datetime.utcnow", "date.today", "time.time_ns"}
    calls = [f"{file}:{node.lineno}" for file, node in everything(ast.Call) if ast.unparse(node.func) in forbidden]
    assert [call for call in calls if not call.startswith("core/clock.py")] == []


def test_core_imports_only_the_standard_library_and_itself():
    # annotationlib: of the standard library, from Python 3.14 on.
    roots = {"routeguard", "typing_extensions", "annotationlib", *sys.stdlib_module_names}
    found = [f"{file}: {name}" for file in FILES if file.startswith("core/") for name in imported(FILES[file])]
    assert [line for line in found if line.split(": ")[1].split(".")[0] not in roots] == []
    assert [line for line in found if ": routeguard" in line and ": routeguard.core" not in line] == []


@pytest.mark.parametrize("name", exported())
def test_every_export_exists_and_says_what_it_is(name):
    assert getattr(getattr(routeguard, name), "__doc__", None), f"{name} has no docstring"


def test_every_import_of_the_package_is_an_export():
    # `from x import name as name` is what mypy and pyright take for one; anything else would be an accident.
    body = FILES["__init__.py"].body
    [for_types] = [node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    aliases = [(node.module, alias) for node in for_types.body for alias in node.names]
    assert [alias.name for _, alias in aliases if alias.asname != alias.name] == []
    # What Python looks up is what the type checkers are told.
    told = {alias.name: module for module, alias in aliases}
    assert {name: f"routeguard.{home}" for name, home in routeguard._HOME.items()} == told
    of_python = {"importlib", "typing", "__future__"}
    assert {node.module for node in body if isinstance(node, ast.Import | ast.ImportFrom)} == of_python


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def is_broad(handler):
    kinds = ast.unparse(handler.type) if handler.type else "BaseException"
    return bool(re.search(r"\b(Base)?Exception\b", kinds))


def lines(function):
    """Count what a reader reads: the body without its docstring and the functions inside, which count themselves."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    inner = {
        line
        for node in ast.walk(function)
        if isinstance(node, FUNCTION) and node is not function
        for line in span(node)
    }
    return len({line for node in body for line in span(node)} - inner)


def span(node):
    return range(node.lineno, node.end_lineno + 1)


# Riddles and persons: write "the user", "a caller", "an attacker", "no caller"; "invalid".
OBSCURE = re.compile(
    r"(?i)\b(nobody|somebody|whoever|whomever|he|his|him|himself|no good|(that|which|who|what|it) is (?-i:none))\b"
)
FORMER_NAMES = {
    "lean",
    "gentle",
    "graced",
    "_once_more",
    "tells",
    "asker",
    "because",
    "Turn",
    "Standing",
    "Standings",
    "until_ended",
    "Companion",
    "Subjects",
    "Letterhead",
    "unhurried",
    "leads_astray",
    "Meant",
    "Trust",
    "Worth",
}
# `_once_more` of this client repeats a command at another server, which is what the name says.
OTHER_MEANING = {("foundation/ephemeral/redis.py", "_once_more")}


def obscure_words():
    """Yield the place of every obscure word in a docstring, comment or string."""
    for file in FILES:
        with tokenize.open(SOURCE / file) as lines_of:
            for token in tokenize.generate_tokens(lines_of.readline):
                if token.type in TEXT and (found := OBSCURE.search(token.string)):
                    yield f"{file}:{token.start[0]} {found[0]}"


def test_docstrings_comments_and_messages_are_plain():
    assert list(obscure_words()) == []


def test_no_renamed_name_comes_back():
    names = {(file, node.name) for file, node in everything(FUNCTION | ast.ClassDef)}
    names |= {(file, node.arg) for file, node in everything(ast.arg)}
    names |= {(file, node.id) for file, node in everything(ast.Name)}
    assert sorted(pair for pair in names - OTHER_MEANING if pair[1] in FORMER_NAMES) == []


def test_no_one_line_docstring_is_repeated_often():
    """What fits more than five functions says nothing of any of them."""
    told = Counter(
        text
        for file, node in everything(FUNCTION | ast.ClassDef)
        if (text := ast.get_docstring(node)) and "\n" not in text
    )
    assert [text for text, times in told.items() if times > 5] == []
