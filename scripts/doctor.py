"""See `experiment/doctor.py`, whose command line this is."""

from __future__ import annotations

import sys

try:
    from experiment.doctor import main
except ImportError as error:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    sys.exit(
        f"problem  packages   Python {version} lacks what is needed ({error}); with Python 3.11 or newer: make env, "
        f"then .venv/bin/python {__file__}"
    )

if __name__ == "__main__":
    main()
