"""`python -m serving BENTO`: serve a Bento until SIGTERM; what an image of the service runs.

Without HOMERANKER_API_KEYS only 127.0.0.1 is served; with them every address (HOMERANKER_HOST, HOMERANKER_PORT).
"""

from __future__ import annotations

import sys
from pathlib import Path

from features.errors import HomerankerError
from serving.package import serve
from serving.params import from_environment, host_and_port


def main() -> int:
    """The exit status of the service."""
    if len(sys.argv) != 2:
        print("usage: python -m serving BENTO", file=sys.stderr)
        return 2
    try:
        told = from_environment()
        return serve(Path(sys.argv[1]), told.home, *host_and_port(), told.workers, told.fallback)
    except HomerankerError as error:
        print(f"serving: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
