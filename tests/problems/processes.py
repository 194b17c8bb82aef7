"""What a new Python process says that can import these problems."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def run_python(code: str, interruption: signal.Signals | None = None, **environment: str) -> tuple[str, str]:
    """What it prints, and its errors; it is interrupted half a second after its first line."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": path} | environment
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        first = process.stdout.readline() if interruption and process.stdout else ""
        if interruption:
            time.sleep(0.5)
            process.send_signal(interruption)
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return first + out, err
