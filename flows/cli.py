"""`homeranker`: every command, its exit status and its two voices (words for people, one JSON document for programs).

Choices. Heavy libraries are imported inside the commands, so that --help answers at once. With --json stdout holds one
JSON document and everything else goes to stderr. Exit: 0 done, 1 failed, 2 wrong usage, 3 refused by a gate, 4 waiting
for approval. The commands stand in flows/commands/, a file for each person who types them.
"""

from __future__ import annotations

from flows.commands import decisions, deploy, jobs, look, schedule, service, simulate, tune
from flows.commands.base import app
from flows.voice import run

COMMANDS = (
    jobs,
    tune,
    decisions,
    look,
    schedule,
    service,
    deploy,
    simulate,
)  # an import registers them


def main() -> None:
    """The entry point."""
    run(app)


if __name__ == "__main__":
    main()
