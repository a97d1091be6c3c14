"""Print the results of the probes of the named components as one line of JSON: name to numbers, or to an error."""

import json
import os
import sys

os.environ.setdefault("YOLO_OFFLINE", "true")

from fusionlib.probes.registry import see

if __name__ == "__main__":
    stdout, sys.stdout = sys.stdout, sys.stderr  # the output of the probed code is not part of the answer
    results = {}
    for name in sys.argv[1:]:
        try:
            results[name] = see(name)
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(results), file=stdout)
