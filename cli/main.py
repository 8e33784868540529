"""The `millrace` console script.

Decides: that imports go as far as the command needs. Leaves: the commands to app.py.
"""

import sys


def main() -> None:
    """Hand over to the command. `up` goes past typer: the supervisor stays, and what it imports stays with it."""
    if sys.argv[1:] == ["up"]:
        from cli.supervise import supervise

        sys.exit(supervise())
    from cli.app import app

    app()


if __name__ == "__main__":
    main()
