"""Every error that a user can meet, as one tree.

    HomerankerError                 says what is wrong, where, and what to do
    ├── UsageError                  wrong words on the command line, wrong value in params.yaml     exit 2
    ├── DataError                   the input cannot be used                                          exit 1
    │   ├── SourceError             a file cannot be read: missing, truncated, not the named format
    │   ├── SchemaError             a table lacks a column or holds another type
    │   └── ValidationFailed        a critical expectation failed
    ├── TrainingError               a loss that is not finite, no rows to learn from                 exit 1
    ├── ArtifactError               a stored artifact is missing, changed or not loadable            exit 1
    ├── StoreError                  the online store or the event log cannot be read or written      exit 1
    ├── BusyError                   somebody else holds what this command needs                      exit 1
    ├── GateRefused                 the gate said refuse or cannot tell                              exit 3
    └── ApprovalPending             waits for a person's approval                                    exit 4

The command line turns `exit_code` into the exit status; nothing else in the project calls `sys.exit`.
"""

from __future__ import annotations


class HomerankerError(Exception):
    """What is wrong, where, and what to do about it; `exit_code` is the command's exit status."""

    exit_code = 1


class UsageError(HomerankerError):
    """Wrong words on the command line or a wrong value in params.yaml."""

    exit_code = 2


class DataError(HomerankerError):
    """The input cannot be used."""


class SourceError(DataError):
    """A file cannot be read: missing, truncated, or not of the named format."""


class SchemaError(DataError):
    """A table lacks a column or holds another type."""


class ValidationFailed(DataError):
    """A critical expectation failed; the message names table, column, rule, count and sample rows."""


class TrainingError(HomerankerError):
    """Training cannot go on: a loss that is not finite, or nothing to learn from."""


class ArtifactError(HomerankerError):
    """A stored artifact is missing, was changed, or does not load."""


class StoreError(HomerankerError):
    """The online store or the event log cannot be read or written."""


class BusyError(HomerankerError):
    """Somebody else holds what this command needs; the message says who and since when."""


class GateRefused(HomerankerError):
    """The gate said refuse or cannot tell."""

    exit_code = 3


class ApprovalPending(HomerankerError):
    """Waits for a person's approval."""

    exit_code = 4
