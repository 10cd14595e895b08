"""The one exception whose message is meant for the person at the keyboard."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, told in one sentence: what was wrong and what to do about it."""
