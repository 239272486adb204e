"""The table of addresses that every entry is called with: int64 words, shared by compiled code and its callers.

[pool, arena, status, arguments..., results...]; the status is written by the code.
"""

from __future__ import annotations

HEADER = 3
"""Words before the first argument."""
