"""Reads a page as a browser would: what is in it, and what it would load from elsewhere."""

import base64
import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, tag):
        return [data for name, data in self.texts if name == tag]


# Attributes by which a browser loads something, and elements that exist to do so.
_LOADS = ("src", "srcset", "href", "data", "poster", "action", "formaction", "background", "xlink:href", "manifest")
_LOADERS = {"script", "link", "iframe", "frame", "object", "embed", "base", "audio", "video", "source", "form"}


def loaded_from_elsewhere(text):
    """What a page would load from anywhere but itself."""
    page, found = Page(text), []
    for tag, attributes in page.tags:
        if tag in _LOADERS or attributes.get("http-equiv", "").lower() == "refresh":
            found.append(tag)
        for name, value in attributes.items():
            if name in _LOADS and not str(value).startswith(("data:image/", "#")):
                found.append(f"{tag} {name}={value}")
            if name.startswith("on") or (name == "style" and "url(" in str(value)):
                found.append(f"{tag} {name}")
    for style in page.text("style"):
        found += re.findall(r"@import.*|url\([^)]*\)?|expression\(", style)
    for image in page.of("img"):
        kind, _, content = image["src"].partition(";base64,")
        if kind == "data:image/svg+xml":
            inner = base64.b64decode(content).decode()
            found += re.findall(r'(?:href|src)="(?!#)[^"]*"|<script|<image|@import|url\((?!#)', inner)
    return found
