"""`routeguard`: what a developer and an operator type. Each command is imported only when it is run."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Final

try:
    from cyclopts import App, CycloptsError
except ModuleNotFoundError:
    sys.exit('The command `routeguard` needs an extra: pip install "routeguard[cli,identity]"')

from routeguard.cli.output import Outputs
from routeguard.core.errors import ConfigError, Misconfigured, ProblemError, Unavailable

GOOD: Final = 0
FINDINGS: Final = 1
COULD_NOT_RUN: Final = 2

app: Final = App(
    name="routeguard",
    help="Protects every API route, runs the identity service behind it, and proves that no route was forgotten.",
    version=lambda: version("routeguard"),
    help_format="plaintext",
)
app.command("routeguard.cli.dev:dev", name="dev", help="Run the example application, for trying and developing.")
app.command("routeguard.cli.serve:serve", name="serve", help="Run the identity service by itself.")
app.command("routeguard.cli.migrate:migrate", name="migrate", help="Bring the database to the current schema.")
app.command("routeguard.cli.user:app", name="user", help="Users: create, list, disable, enable, role, password.")
app.command("routeguard.cli.key:app", name="key", help="The keys that sign access tokens: rotate.")
app.command("routeguard.cli.client:app", name="client", help="Services that may ask: create, list, rotate, revoke.")
app.command("routeguard.cli.config:app", name="config", help="Show the settings in force.")


def main() -> None:
    """Run the command line and exit.

    A reader that closes the pipe (`| head`) changes nothing: neither what the command does nor its exit code.
    """
    outputs = Outputs()
    code = run(sys.argv[1:])
    if failure := outputs.finish():
        complain(f"The output could not be written: {failure.strerror}")
        sys.stderr.flush()
        code = COULD_NOT_RUN
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; return its exit code."""
    try:
        _add_commands(arguments)
        result = app(arguments, exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        return COULD_NOT_RUN  # Said already.
    except ConfigError as error:
        complain("This cannot run:", *error.findings)
        return COULD_NOT_RUN
    except ProblemError as error:
        complain(error.problem.detail or error.problem.type.title, *_errors(error))
        return COULD_NOT_RUN
    except Misconfigured as error:
        complain("This cannot run:", error.what)
        return COULD_NOT_RUN
    except Unavailable as error:
        complain(f"Not available: {error.what}")
        return COULD_NOT_RUN
    except KeyboardInterrupt:
        return GOOD
    return result if isinstance(result, int) else GOOD


def _add_commands(arguments: list[str]) -> None:
    """Add the commands of the features that the settings list, unless one of our own is run. Raises ConfigError."""
    if arguments and arguments[0] in app and arguments[0] not in {"--help", "-h"}:
        return
    from routeguard.settings import Settings  # noqa: PLC0415 - slow to import

    settings, _ = Settings.read()  # What else is wrong with them, the command will say.
    if not settings.features:
        return
    from routeguard.builtin.features import chosen  # noqa: PLC0415 - slow to import
    from routeguard.settings.branches import listed  # noqa: PLC0415 - slow to import

    features, findings = listed(settings.features)
    features = chosen(None, None, features, findings)
    if findings:
        raise ConfigError(findings)
    for feature in features:
        for name, place in feature.commands.items():
            if name not in app:
                app.command(place, name=name)


def complain(headline: str, *findings: str) -> None:
    """Write to standard error: a headline, and each finding on a line of its own."""
    sys.stderr.write("\n".join([headline, *(f"  - {finding}" for finding in findings)]) + "\n")


def _errors(error: ProblemError) -> list[str]:
    listed = error.problem.members.get("errors", ())
    return [f"{item['pointer'][1:]}: {item['detail']}" for item in listed]
