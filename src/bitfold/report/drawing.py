"""From a chart's specification to SVG for the page, and to PNG for slides. Nothing is fetched."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from bitfold.errors import BitfoldError
from bitfold.report.look import Look, Spec, config
from bitfold.report.renderer import RENDERER

PACKAGES = ("vl_convert", "jinja2")
INSTALL = "pip install 'bitfold[report]'"
SLACK = 0.03  # of a chart's width that scaling makes good
SVG = "{http://www.w3.org/2000/svg}"


def missing() -> str | None:
    """The first package that the page needs and that is not there; None if all are."""
    from importlib.util import find_spec

    return next((name for name in PACKAGES if find_spec(name) is None), None)


def check_packages() -> None:
    """Raise unless all that the page needs is installed."""
    name = missing()
    if name is not None:
        raise BitfoldError(
            "the page needs a package that is not installed",
            got=f"no {name}",
            expected=" and ".join(PACKAGES),
            fix=INSTALL,
        )


def svg(draw: Callable[[Look], Spec], look: Look, about: str) -> str:
    """A chart as an `<svg>` element whose marks have their words as tooltips.

    How wide labels are is known when they are drawn, so a chart that is off by more than a few
    pixels is drawn again, wider or narrower; the rest is scaled.

    Args:
        draw: makes the chart's specification.
        look: where it is drawn.
        about: what it shows, for those who do not see it.
    """

    def drawn(width: int) -> ElementTree.Element:
        at = replace(look, width=width)
        return ElementTree.fromstring(RENDERER.draw("svg", _whole(draw(at), at)))

    root = drawn(look.width)
    off = look.width - round(float(root.get("width", look.width)))
    if abs(off) > SLACK * look.width:
        root = drawn(look.width + off)
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        for name in ("d", "transform", "x2", "y2"):
            if name in element.attrib:  # hundredths of a pixel are enough
                element.set(name, re.sub(r"(\d+\.\d{2})\d+", r"\1", element.attrib[name]))
        label = element.attrib.pop("aria-label", None)
        for name in ("role", "aria-hidden", "aria-roledescription", "pointer-events"):
            role = element.attrib.pop(name, None)
            if name == "role" and role == "graphics-symbol" and label and _is_mark(element):
                title = ElementTree.Element("title")
                title.text = label
                element.insert(0, title)
    for name in list(root.attrib):
        if name != "viewBox":
            del root.attrib[name]
    root.set("style", f"max-width:{look.width}px")
    root.set("role", "img")
    root.set("aria-label", about)
    root.set("class", "narrow" if look.narrow else "wide")
    return ElementTree.tostring(root, encoding="unicode")


def _is_mark(element: ElementTree.Element) -> bool:
    return element.get("aria-roledescription") not in ("axis", "legend", "title")


def png(spec: Spec, look: Look, title: str) -> bytes:
    """A chart as a picture with its title, two pixels for each of its own."""
    titled = spec | {"title": {"text": title, "fontSize": 20, "offset": 16}}
    return RENDERER.draw("png", _whole(titled, look))


def _whole(spec: Spec, look: Look) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "config": config(look),
        **spec,
    }
