"""See `experiment/doctor.py`, whose command line this is."""

from __future__ import annotations

import sys

try:
    from experiment.doctor import main
except ImportError as error:
    sys.exit(
        f"problem  packages   this Python lacks what is needed ({error}); make env, then .venv/bin/python {__file__}"
    )

if __name__ == "__main__":
    main()
