"""A worker of the GPU check that does what is asked of it, good or bad."""

import os
import time
from multiprocessing.connection import Connection
from pathlib import Path


def serve(pipe: Connection, log: Path) -> None:
    """``fine``, ``hang`` or ``crash``."""
    log.write_text("last words")
    while (asked := pipe.recv()) is not None:
        kind, arguments = asked
        if kind == "crash":
            os._exit(7)
        if kind == "hang":
            time.sleep(60)
        pipe.send(("done", {"pid": os.getpid(), **arguments}))
