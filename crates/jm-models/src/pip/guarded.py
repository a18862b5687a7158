# Runs the module that the first argument names, as `python3 -m` does, so that it ends when its standard input does:
# when whoever started it is gone.
import sys

sys.path = [path for path in sys.path if path]  # not what the working folder has of that name

import os, runpy, threading


def end_with_parent():
    os.read(0, 1)
    os._exit(1)


threading.Thread(target=end_with_parent, daemon=True).start()
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
