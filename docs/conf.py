"""How Sphinx builds the site; `build.py` calls it."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from typing import Any

from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.nodes import make_refnode

import numparam

project = "numparam"
author = copyright = "The numparam developers"  # noqa: A001
version = release = numparam.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]

html_theme = "pydata_sphinx_theme"
html_title = "numparam"
html_theme_options = {"show_toc_level": 2, "navbar_align": "left", "header_links_before_dropdown": 5}
html_sidebars = {"*": []}
html_show_sourcelink = False
html_copy_source = False

myst_heading_anchors = 3

nitpicky = True
suppress_warnings = ["config.cache"]  # `autosummary_context` holds a function; every build is a full one
default_role = "py:obj"  # a name in single backticks is a reference, which `resolve` follows or refuses
nitpick_ignore_regex = [
    ("py:class", r".*\bD\b.*|.*view on.*|.*view of.*")
]  # the words of dict's own docstrings are not types

autodoc_typehints = "none"  # the docstrings describe types in words
numpydoc_show_class_members = False

_HOMES: dict[int, str] = {}


def listed(module_name: str) -> list[str]:
    """Return the classes and functions to document under a module: those that no module before it has."""
    module = import_module(module_name)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module_name]
    found = {name: getattr(module, name) for name in sorted(getattr(module, "__all__", own)) if name[0] != "_"}
    return [
        name
        for name, value in found.items()
        if callable(value) and _HOMES.setdefault(id(value), module_name) == module_name
    ]


autosummary_context = {"listed": listed}


def resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Link a name in single backticks to the page of what it names, wherever that is defined.

    Arguments, names of other libraries and existing names without a page stay plain code. A name of numparam that does
    not exist is reported.
    """
    target = node["reftarget"]
    if node.get("reftype") != "obj":
        return None
    objects = env.domains["py"].objects
    last = target.rpartition(".")[2]
    found = [name for name in objects if name.endswith(f".{target}") or _is_same(name, target, last)]
    if found and (last[0].isupper() or "." in target):
        entry = objects[min(found, key=len)]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, target)
    is_ours = target.startswith("numparam.") or re.fullmatch(r"[A-Z][a-z]+\w*", target)
    return None if is_ours and not _exists(target) else content


def _is_same(documented: str, target: str, last: str) -> bool:
    """Tell whether a dotted name of numparam is defined in an inner module and documented in an outer one."""
    if not target.startswith("numparam.") or not documented.endswith(f".{last}"):
        return False
    return target.startswith(documented.rpartition(".")[0] + ".")


def _exists(target: str) -> bool:
    """Tell whether numparam has a name, in any module that is imported."""
    outer, _, last = target.rpartition(".")
    modules = [module for name, module in list(sys.modules.items()) if name.split(".")[0] == "numparam"]
    return target in sys.modules or any(hasattr(module, last) for module in modules if outer in ("", module.__name__))


def setup(app: Any) -> None:
    """Follow references, and write formulas as MathML, which browsers draw without a script from elsewhere."""
    app.connect("missing-reference", resolve)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_display_math, None))


html_math_renderer = "mathml"


def _inline_math(translator: Any, node: Any) -> None:
    _write(translator, node, as_block=False)


def _display_math(translator: Any, node: Any) -> None:
    _write(translator, node, as_block=True)


def _write(translator: Any, node: Any, *, as_block: bool) -> None:
    from docutils import nodes

    translator.body.append(tex2mathml(node.astext(), as_block=as_block).replace(r"\_", "_"))
    raise nodes.SkipNode
