"""Hrefs of catalogs are data: made absolute, checked against what may be read, and never shown with their tokens."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from think2seg.config.archive import HrefRules
from think2seg.errors import CatalogError


def is_url(href: str) -> bool:
    """Tell a URL from a path of this machine."""
    return "://" in href and not href.lower().startswith("file:")


def absolute(href: str, base: str) -> str:
    """Resolve `href` against the document at `base`: a URL, or a path of this machine."""
    if is_url(href):
        return href
    if is_url(base):
        return urljoin(base, href)
    path = unquote(urlsplit(href).path) if href.lower().startswith("file:") else href
    return os.path.realpath(os.path.join(os.path.dirname(base), path))


def redacted(href: str) -> str:
    """Return `href` without query, fragment and credentials: fit for a message."""
    if not is_url(href):
        return href
    parts = urlsplit(href)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class HrefGuard:
    """Decides which hrefs of one catalog may be read."""

    catalog: str
    """URL or absolute path of the catalog's root document."""
    rules: HrefRules

    def asset(self, href: str, base: str) -> str:
        """Return the absolute href of an asset named in the document at `base`.

        Raises
        ------
        CatalogError
            If neither the catalog's own root nor the archive's rules allow it.
        """
        target = absolute(href, base)
        if self._own(target) or (is_url(target) and self._listed(target)):
            return target
        roots = ", ".join(self.rules.roots) or "any host"
        raise CatalogError(
            f"The href {redacted(target)!r} may not be read.",
            f"Allowed: what lies beside the catalog, and {'/'.join(self.rules.schemes)} below {roots}.",
            "If it is to be trusted, add its root to `hrefs` of the archive.",
        )

    def document(self, href: str, base: str) -> str:
        """Return the absolute href of a further catalog page or document, which must lie beside the catalog."""
        target = absolute(href, base)
        if self._own(target):
            return target
        raise CatalogError(
            f"The catalog links to {redacted(target)!r}, which lies outside its own root.",
            f"Allowed: documents below {redacted(self.root)}.",
            "Name that catalog in the monitor's `source.catalog` if it is to be trusted.",
        )

    @property
    def root(self) -> str:
        """Scheme and host of a URL, or the folder of a local catalog."""
        if is_url(self.catalog):
            parts = urlsplit(self.catalog)
            return f"{parts.scheme}://{parts.netloc}/"
        return os.path.dirname(self.catalog)

    def _own(self, target: str) -> bool:
        if is_url(self.catalog):
            return is_url(target) and _normal(target).startswith(_normal_root(self.root))
        return not is_url(target) and target.startswith(_folder(self.root))

    def _listed(self, target: str) -> bool:
        if urlsplit(target).scheme.lower() not in self.rules.schemes:
            return False
        normal = _normal(target)
        return not self.rules.roots or any(normal.startswith(_normal_root(root)) for root in self.rules.roots)


@lru_cache
def _folder(root: str) -> str:
    return os.path.join(os.path.realpath(root), "")


@lru_cache
def _normal_root(root: str) -> str:
    return _normal(root)


def _normal(url: str) -> str:
    """Lower-case scheme and host, with the path's dots resolved, so that prefixes can be compared."""
    parts = urlsplit(url)
    path = urlsplit(urljoin("http://host/", parts.path or "/")).path
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), path, "", ""))
