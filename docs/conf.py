"""Settings of the documentation site: `make site` writes it to build/site, and it opens from disk."""

project = "kappahop"
author = "kappahop developers"
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "kappahop"
html_show_sphinx = False
html_copy_source = False
