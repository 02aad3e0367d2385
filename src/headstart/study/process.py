"""`python -P -m headstart.study.process TOLD`: a worker of a study as a process of its own, started by `local.py`.

It follows the process that started it from its first moment on, before the imports, which take long on a busy machine:
a worker whose study was killed just after its start would else be alive for as long as they take.
"""

import os
import signal
import sys
import threading


def follow_parent() -> None:
    """Ask this process to stop when the one that started it, which holds the other end of stdin, is gone."""
    while os.read(0, 4096):  # not through `sys.stdin`, whose lock would be held while Python shuts down
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, without a traceback of what was being imported
    threading.Thread(target=follow_parent, daemon=True).start()
    from headstart.study.worker import main

    sys.exit(main(sys.argv[1]))
