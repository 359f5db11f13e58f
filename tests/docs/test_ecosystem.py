"""What .ci/ecosystem runs: all that needs a package, and none of it is skipped."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PACKAGES = re.search(r"^ECOSYSTEM := (.*)$", MAKEFILE, re.MULTILINE)[1].split()


def test_the_makefile_names_the_packages_of_the_extra():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extra = re.search(r"^ecosystem = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)[1]
    required = re.findall(r'"([\w-]+)>=', extra)
    assert sorted(required) == required == PACKAGES


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_ecosystem_runs_every_file_that_asks_for_one_of_the_packages():
    command = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "ecosystem"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MAKEFLAGS": "", "MAKELEVEL": "0"},  # also below `make test`
    )
    run = command.stdout.splitlines()[-1].split()
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    asking = {
        str(path.relative_to(ROOT))
        for path in files
        if any(
            f'{ask}("{name}' in text
            for text in [path.read_text(encoding="utf-8")]
            for name in PACKAGES
            for ask in ("importorskip", "find_spec")
        )
    }
    asking = {name for name in asking if not name.startswith("tests/integrations/")}
    assert {"docs/in_your_own_loop.md", "docs/cookbook.md"} <= asking
    assert asking - set(run) == set()
    assert ("tests/integrations" in run) == (ROOT / "tests/integrations").is_dir()
    assert "--no-skips" in run


MODULE = "import pytest\nmissing = pytest.importorskip('not_there')\ndef test_it(): pass\n"
INSIDE = "import pytest\ndef test_it():\n    pytest.importorskip('not_there')\n"
PAGE = """<!-- skip: next if(True, reason="not_there is not installed") -->

```python
1 / 0
```
"""
FINE = """import pytest

@pytest.mark.slow
def test_slow(): raise SystemError

@pytest.mark.xfail
def test_expected(): raise SystemError

def test_passed(): pass
"""


def test_no_skips_fails_what_a_missing_package_would_leave_out(tmp_path):
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n", encoding="utf-8")
    files = {"test_a.py": MODULE, "test_b.py": INSIDE, "page.md": PAGE, "test_c.py": FINE}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")

    def run(*options: str) -> tuple[int, str]:
        options = ("-p", "no:cacheprovider", "--continue-on-collection-errors", *options)
        command = [sys.executable, "-m", "pytest", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout

    code, output = run()
    assert code == 0
    assert "= 2 passed, 4 skipped, 1 xfailed" in output
    code, output = run("--no-skips")
    assert code == 1
    assert "= 2 failed, 2 passed, 1 skipped, 1 xfailed, 1 error" in output
    assert output.count("--no-skips: ") >= 3
