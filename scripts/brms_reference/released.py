"""Write the decisions that the paper's authors released (GPT-4o-mini, instilled) as trials for fit.R.

python scripts/brms_reference/released.py ../shared/released /tmp/released_trials.csv

The file has the columns of simulate.py. It holds the authors' trials: keep it outside of the repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

from analysis.study.released_files import Decisions, find_model, load_model
from scripts.brms_reference.trials import trials_table


def released_decisions(folder: Path) -> Decisions:
    """Decisions of the instilled model on the contexts that it was taught.

    Raises:
        InputError: A file of the release is missing or of another form (see `analysis.study.released_files`).
    """
    return load_model(folder, find_model(folder, "gpt-4o-mini")).decisions["instilled"]


def main() -> None:
    """Write the file that the command line names."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    table = trials_table(released_decisions(Path(sys.argv[1])))
    table.to_csv(Path(sys.argv[2]), index=False)
    print(f"{len(table)} trials in {table['context'].nunique()} contexts: {sys.argv[2]}")


if __name__ == "__main__":
    main()
