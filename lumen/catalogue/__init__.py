"""What is known of providers and their models: presets, capabilities, prices, context windows."""

from __future__ import annotations

from lumen.catalogue.catalogue import Catalogue, Entry
from lumen.catalogue.vendors import Vendor, vendor

__all__ = ["Catalogue", "Entry", "Vendor", "vendor"]
