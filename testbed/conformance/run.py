"""Runs the functions `check_*` of every `checks_*.py` beside it against API_URL, each with a client of the official library.

A check makes what it needs, with names of its own, and ends what it made. `kit.py` has what checks share.
"""

import importlib
import os
import pathlib
import sys
import time
import traceback

import kit

here = pathlib.Path(__file__).parent
wanted = os.environ.get("FILTER", "")
failed = []
count = 0
for path in sorted(here.glob("checks_*.py")):
    module = importlib.import_module(path.stem)
    for name, check in list(vars(module).items()):
        if not name.startswith("check_") or wanted not in name:
            continue
        count += 1
        began = time.monotonic()
        try:
            check(kit.client())
            print(f"ok      python {name} ({(time.monotonic() - began) * 1000:.0f} ms)")
        except Exception:  # a check fails in whatever way it fails; the others go on
            failed.append(name)
            print(f"FAILED  python {name}")
            traceback.print_exc()
if failed or (not count and not wanted):
    sys.exit(f"{len(failed)} of {count} checks failed: {', '.join(failed)}")
print(f"python: {count} checks passed")
