"""The integration of transformers where it, or what its Trainer needs, is not installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from polarity import integrations


@pytest.mark.parametrize("missing", ["transformers", "accelerate"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    missing: str, tmp_path: Path
) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nimport polarity.integrations.transformers"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == (
        "ImportError: polarity.integrations.transformers needs transformers and accelerate: "
        'pip install "torch-polarity[transformers]"'
    )


def test_the_integrations_import_public_names_only() -> None:
    from tests.laws.test_layers import is_public, used_of_polarity

    folder = Path(integrations.__file__).parent
    wrong = [
        f"{path.name} uses {name}"
        for path in folder.rglob("*.py")
        for name in used_of_polarity(path)
        if not is_public(name)
        and not name.startswith("polarity.integrations")
        and not name.endswith(".safetensors")  # a file
    ]
    assert wrong == []
