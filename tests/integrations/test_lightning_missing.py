"""The integration of Lightning where it is not installed."""

import subprocess
import sys
from pathlib import Path


def test_a_missing_package_is_named_with_the_extra_that_brings_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['lightning'] = sys.modules['pytorch_lightning'] = None\n"
        "import polarity.integrations.lightning"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == (
        "ImportError: polarity.integrations.lightning needs lightning: "
        'pip install "torch-polarity[lightning]"'
    )
