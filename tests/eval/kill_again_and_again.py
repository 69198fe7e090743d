"""Evaluate a configuration while being killed at random moments: `python kill_again_and_again.py CONFIG KILLS`.

Each life of the evaluation is a forked process, so that the model is loaded once and not again after every kill. It is
killed with SIGKILL once a random number of shards has been written, and a random time of up to the length of a few
shards after that; together the lives go once through the evaluation, whatever the speed of the machine. A life that
ends before its kill is followed by a new evaluation, so that every kill hits one under way. Prints the number of kills,
and of those that came after the first trial file was finished.
"""

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eval.engines import make_engine
from eval.engines.base import Engine
from eval.runner import evaluate, write_shard
from eval.work import Work, list_work
from store.evaluation import EvalConfig
from store.manifests import MANIFEST
from store.settings import read_settings
from store.shards import written_shards


def start(engine: Engine, config: EvalConfig) -> int:
    """Start an evaluation in a process of its own; returns its id."""
    if (child := os.fork()) == 0:
        evaluate(engine, config, quiet=True)
        os._exit(0)
    return child


def written(works: list[Work]) -> int:
    return sum(w.shards if (w.folder / MANIFEST).exists() else len(written_shards(w.folder)) for w in works)


def shard_seconds(engine: Engine, works: list[Work], folder: Path) -> float:
    """Load the model, and see how long a shard takes."""
    write_shard(engine, works[0], 0)
    started = time.perf_counter()
    write_shard(engine, works[0], 0)
    shutil.rmtree(folder)
    return time.perf_counter() - started


def main() -> None:
    # The progress line has a lock that forked processes share: one killed with it in hand would stop the next.
    tqdm.set_lock(threading.RLock())
    config, kills, random = read_settings(Path(sys.argv[1]), EvalConfig), int(sys.argv[2]), np.random.default_rng(0)
    output, engine, works = Path(config.output), make_engine(config), list_work(config)
    works[0].folder.mkdir(parents=True)
    while_a_shard = shard_seconds(engine, works, output)
    total = sum(work.shards for work in works)
    step = 2 * total // kills
    killed = late = 0
    while killed < kills:
        goal = min(total, written(works) + random.integers(0, step))
        child, moment = start(engine, config), random.uniform(0, 3 * while_a_shard)
        while written(works) < goal and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)
        time.sleep(moment)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, "the evaluation failed by itself"
            shutil.rmtree(output)
            continue
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
        late += (works[0].folder / MANIFEST).exists()
    assert os.waitpid(start(engine, config), 0)[1] == 0
    print(killed, late)


if __name__ == "__main__":
    main()
