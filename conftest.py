"""Without torch, the modules that need it are left out: of the tests and of the doctests."""

from tests import without_torch


def pytest_ignore_collect(collection_path):
    if without_torch.INSTALLED:
        return None
    return collection_path in without_torch.needing() or None


def pytest_report_header():
    if without_torch.INSTALLED:
        return None
    count = len(without_torch.needing())
    return f"torch is not installed: {count} modules that need it are left out"
