"""The site of the documentation: `make docs` builds it into docs/_build/html."""

import bitfold

project = "bitfold"
author = "the bitfold authors"
release = version = bitfold.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "results-notes.md"]
nitpicky = False

# Markdown: every heading can be linked to; what is no page (JSON, files of the repository) is
# a download.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.strikethrough"]

# Docstrings are in Google's style, with code in single backticks.
default_role = "code"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_admonition_for_examples = False

html_theme = "furo"
html_title = f"bitfold {release}"
html_copy_source = False
html_theme_options = {
    "source_repository": "",
    "light_css_variables": {"font-stack": "system-ui, sans-serif"},
}
html_theme_options = {key: value for key, value in html_theme_options.items() if value}
