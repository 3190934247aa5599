"""Commands as a user gives them, with few steps."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from semedit.cli.app import app

FAST_INVERT = ("-o", "steps=2", "-o", "tune_steps=1")


FAST_EDIT = ("-o", "steps=2")


def semedit(*arguments, code=0):
    """Run a command; returns its JSON lines, or its text without --json."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    if "--json" in arguments:
        return [json.loads(line) for line in result.stdout.splitlines()]
    return result.output


def statuses(lines):
    return {line["name"]: line["status"] for line in lines if not line.get("summary")}
