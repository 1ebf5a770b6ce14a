"""`python -m compose` is `freshet`."""

from __future__ import annotations

import sys

from compose.cli import main

if __name__ == "__main__":
    sys.exit(main())
