from ui_site import _browser, _served, site, visit, visitor

__all__ = ["_browser", "_served", "site", "visit", "visitor"]
