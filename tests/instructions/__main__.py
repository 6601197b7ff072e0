"""Write the baseline of this interpreter anew."""

from __future__ import annotations

import json
import sys

from tests.instructions import BASELINE, count, interpreter, read, why_not

reason = why_not()
if reason:
    sys.exit(reason)
baselines = read()
counts = baselines[interpreter()] = count()
BASELINE.write_text(json.dumps(dict(sorted(baselines.items())), indent=1) + "\n")
for name, sides in counts.items():
    print(f"{name:<32}{sides['stdlib']:>9}{sides['ours']:>9}{sides['stdlib'] / sides['ours']:8.2f}")
