"""Kernels of notebooks that need not import what takes long to import: forked from a process that has.

Each is a process of its own that begins as any kernel does, with all of cvxfold still to import.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVER = """
import os, signal, socket, sys

os.environ["JPY_PARENT_PID"] = str(os.getpid())  # the kernels end when this one does
import cvxpylayers.torch, ipykernel.kernelapp, matplotlib.pyplot, skfolio, sklearn.datasets, tqdm.auto

assert not any(name.partition(".")[0] == "cvxfold" for name in sys.modules)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
address = socket.socket(socket.AF_UNIX)
address.bind(sys.argv[1])
address.listen()
print("ready", flush=True)
while True:
    asked, _ = address.accept()
    folder, file = asked.makefile().readline().rstrip().split(chr(0))
    if os.fork():
        asked.close()
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    address.close()
    os.chdir(folder)
    sys.argv = ["ipykernel_launcher", "-f", file]
    ipykernel.kernelapp.launch_new_instance()
    os._exit(0)
"""

ASK = """
import os, socket, sys

connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall((os.getcwd() + chr(0) + sys.argv[2] + chr(10)).encode())
connection.recv(1)
"""
"""What Jupyter takes for the kernel: it asks for one, which has the connection open until it ends."""


@contextmanager
def forked_kernels(folder: Path, **environment: str) -> Iterator[list[str]]:
    """The command that Jupyter is to start a kernel by, while the process runs that all are forked from.

    Args:
        folder: for its address. environment: of the kernels, beside this process's own.
    """
    inline = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline"
    }  # as a kernel sets it: before the import
    environment = os.environ | inline | environment
    command = [sys.executable, "-c", SERVER, str(folder / "kernels")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield [sys.executable, "-S", "-c", ASK, str(folder / "kernels"), "{connection_file}"]
        finally:
            server.terminate()


def client_of(command: list[str], notebook: Any, **settings: Any) -> Any:
    """What executes a notebook, in a kernel that a command starts."""
    import nbclient
    from jupyter_client.kernelspec import KernelSpec

    class Client(nbclient.NotebookClient):
        def create_kernel_manager(self) -> Any:
            manager: Any = super().create_kernel_manager()
            manager._kernel_spec = KernelSpec(argv=command, language="python", display_name="forked")
            return manager

    return Client(notebook, **settings)
