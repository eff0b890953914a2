"""Errors that a user can cause and mend."""

from __future__ import annotations


class UserError(Exception):
    """One line: what is wrong, in which file or key, and what to do. Shown without a traceback."""
