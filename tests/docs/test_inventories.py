"""The inventories: written by their script, and every name in them exists where it says."""

import importlib
import runpy
import zlib

import pytest

from tests.docs.api_pages import DOCS

SCRIPT = runpy.run_path(str(DOCS / "inventories" / "write.py"))
PAGES, ELSEWHERE = SCRIPT["PAGES"], SCRIPT["ELSEWHERE"]
each_project = pytest.mark.parametrize("project", PAGES)


def lead_to(name: str) -> object:
    """Return what a name leads to: a module's attribute, or one of Python's own names."""
    if "." not in name:
        return eval(name)
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def entries(project: str) -> dict[str, str]:
    """Return the names of a committed inventory, with their addresses below the project's."""
    head, _, body = (DOCS / "inventories" / f"{project}.inv").read_bytes().partition(b"zlib.\n")
    assert head.startswith(b"# Sphinx inventory version 2\n")
    lines = [line.split(" ") for line in zlib.decompress(body).decode().splitlines()]
    assert all(len(line) == 5 and line[1].startswith("py:") for line in lines)
    return {line[0]: line[3] for line in lines}


@each_project
def test_a_committed_inventory_is_what_its_script_writes(project):
    committed = entries(project)
    names = {name for page in PAGES[project].values() for name in page}
    assert committed.keys() == names | ELSEWHERE[project].keys()
    head, _, body = SCRIPT["inventory"](project).partition(b"zlib.\n")
    assert head.startswith(b"# Sphinx inventory version 2\n")
    assert len(zlib.decompress(body).decode().splitlines()) == len(committed)


@each_project
def test_every_name_exists(project):
    for names in PAGES[project].values():
        for name, kind in names.items():
            there = lead_to(name)
            assert isinstance(there, type) or kind != "class", name
            assert callable(there) or kind != "function", name


@each_project
def test_a_class_leads_to_the_page_of_its_public_name(project):
    committed = entries(project)
    for name, public in ELSEWHERE[project].items():
        assert (
            committed[name]
            == committed[public]
            == committed[public].partition("#")[0] + f"#{public}"
        )


def test_names_of_torch_lead_to_its_documentation():
    torch = entries("torch")
    assert torch["torch.nn.Module"] == "generated/torch.nn.Module.html#torch.nn.Module"
    assert torch["torch.Tensor"] == "tensors.html#torch.Tensor"
    assert torch["torch.optim.Optimizer"] == "optim.html#torch.optim.Optimizer"
    assert torch["torch.Generator"] == "generated/torch.Generator.html#torch.Generator"


def test_sphinx_reads_them():
    inventory = pytest.importorskip("sphinx.util.inventory")
    for project in PAGES:
        raw = (DOCS / "inventories" / f"{project}.inv").read_bytes()
        loads = getattr(inventory.InventoryFile, "loads", None)
        if loads is None:
            pytest.skip("an older Sphinx")
        read = loads(raw, uri="https://example.org")
        assert set(entries(project)) <= {name for names in read.data.values() for name in names}


def test_a_build_fetches_nothing():
    conf = (DOCS / "conf.py").read_text(encoding="utf-8")
    for project in PAGES:
        assert f'"inventories/{project}.inv"' in conf
    assert conf.count('.inv")') == len(PAGES)
