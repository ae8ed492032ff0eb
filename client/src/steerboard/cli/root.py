"""The commands together, and every failure as a sentence and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

from steerboard._version import __version__
from steerboard.cli import exits
from steerboard.cli.account import balance, create_api_key, list_api_keys, login, logout, signup, topup, whoami
from steerboard.cli.completion import completion
from steerboard.cli.doctor import doctor
from steerboard.cli.generate import generate
from steerboard.cli.serve import serve
from steerboard.cli.vector import vector
from steerboard.errors import SteerboardError

COMPLETE = "_STEERBOARD_COMPLETE"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="steerboard")
def root() -> None:
    """Steerboard from a terminal: accounts and keys, steered text, vectors, a local server.

    Ends with 0 when done, 1 after an error, 2 for wrong usage, 3 where credentials do not suffice, 4 where a thing is
    not found, 5 where a quota is spent or the server is full.
    """


for each in (
    signup, login, logout, whoami, list_api_keys, create_api_key, balance, topup, generate, vector, serve, doctor,
    completion,
):  # fmt: skip
    root.add_command(each)


def run(arguments: Sequence[str]) -> int:
    as_json = "--json" in arguments
    try:
        ended = root.main(
            [*arguments], prog_name="steerboard", standalone_mode=False, complete_var="_STEERBOARD_COMPLETE"
        )
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        print("Interrupted.", file=sys.stderr)
        return exits.INTERRUPTED
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except click.ClickException as error:
        if as_json:
            _tell({"kind": "UsageError", "message": error.format_message(), "exit_code": error.exit_code})
        else:
            error.show()
        return error.exit_code
    except SteerboardError as error:
        code = exits.code_of(error)
        if as_json:
            print(json.dumps(exits.wire_of(error), ensure_ascii=False, default=str))
        else:
            print(f"Error: {error.message}" + (f" {error.cure}" if error.cure else ""), file=sys.stderr)
        return code
    except BrokenPipeError:
        sys.stderr.close()
        return exits.ERROR
    except OSError as error:  # of a file that was named
        if as_json:
            _tell({"kind": "OSError", "message": str(error), "exit_code": exits.ERROR})
        else:
            print(f"Error: {error}", file=sys.stderr)
        return exits.ERROR
    return ended if isinstance(ended, int) else exits.DONE


def _tell(error: dict[str, object]) -> None:
    print(json.dumps({"error": error}, ensure_ascii=False))
