"""What an operator meets when a service starts and when it ends, whoever ends it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from features.errors import UsageError
from serving.package import check_port


def test_a_taken_port_is_one_sentence_that_says_what_to_do(bento: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = {"HOMERANKER_HOME": str(tmp_path), "HOMERANKER_PORT": str(port)}
        words = [sys.executable, "-m", "serving", str(bento)]
        done = subprocess.run(words, env=os.environ | told, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"port {port} of 127.0.0.1 is taken" in done.stderr
    assert "--port" in done.stderr


def test_a_port_that_cannot_be_is_named() -> None:
    with pytest.raises(UsageError, match="70000"):
        check_port("127.0.0.1", 70000)


def test_connections_of_a_service_that_has_just_stopped_do_not_keep_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # who closes first keeps the connection for a minute
    check_port("127.0.0.1", port)
