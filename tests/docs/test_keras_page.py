"""docs/keras.md: its blocks run, one after the other, with warnings as errors."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "keras.md").read_text(encoding="utf-8")


def test_every_block_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 10
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    saturated, skipped = done.stdout.splitlines()
    assert len(eval(saturated)) == 3
    assert 0.0 <= eval(skipped)[0] <= 2.0
