"""Sphinx configuration."""

import os

# Before torch: the examples are small, and threads that wait for each other make them slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import polarity

project = "polarity"
author = "The polarity developers"
copyright = "The polarity developers"
version = release = polarity.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
# The sources of the gallery; what is rendered from them lies in docs/gallery.
exclude_patterns = ["_build", "examples"]

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",  # every example is run
    "within_subsection_order": "ExampleTitleSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 3600,  # times differ by machine: not part of the page
    "plot_gallery": True,
}

autodoc_member_order = "bysource"
# The integrations are documented where their packages are not installed.
autodoc_mock_imports = ["accelerate", "lightning", "transformers"]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = "polarity"
