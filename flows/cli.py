"""`homeranker`: every command, its exit status and its two voices (words for people, one JSON document for programs).

Choices. Heavy libraries are imported inside the commands, so that --help answers at once. With --json stdout holds one
JSON document and everything else goes to stderr. Exit: 0 done, 1 failed, 2 wrong usage, 3 refused by a gate, 4 waiting
for approval. The commands stand in flows/commands/, a file for each person who types them.
"""

from __future__ import annotations

from flows.commands import jobs, decisions, look, service  # noqa: F401, I001 - each registers its commands, in this order
from flows.commands.base import app
from flows.voice import run


def main() -> None:
    """The entry point."""
    run(app)


if __name__ == "__main__":
    main()
