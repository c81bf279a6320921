"""`python -m tests.support.fuzz`."""

from __future__ import annotations

import sys

from tests.support.fuzz.run import main

sys.exit(main(sys.argv[1:]))
