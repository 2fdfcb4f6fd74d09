"""What holds for all tests."""

import os

import pytest
from hypothesis import settings

REQUIRE_ALL = "EDGEWISE_REQUIRE_ALL"
"""When it is 1 in the environment, a test that cannot run here fails: where everything must be there, a skip would hide that it is not."""

EXPLORE = "EDGEWISE_EXPLORE"
"""When it is 1, property tests draw other examples each time; otherwise always the same ones, so that a change is judged by what it changed.
Whoever hunts for bugs explores: `make soak` does."""

settings.register_profile("steady", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("explore" if os.environ.get(EXPLORE) == "1" else "steady")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn a skipped test into a failed one where nothing may be left out."""
    report = yield
    return _strict(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Do the same for a whole file."""
    report = yield
    return _strict(report)


def pytest_terminal_summary(terminalreporter):
    """Tell what tests measured that only fails far beyond what is usual (`user_properties` by the name of `twin`)."""
    reports = [each for outcome in ("passed", "failed") for each in terminalreporter.stats.get(outcome, ())]
    lines = [line for report in reports if report.when == "call" for name, line in report.user_properties if name == "twin"]
    if lines:
        terminalreporter.section("the twin and the real fleet")
        terminalreporter.write_line("\n".join(lines))
    sums = {}
    for name, value in (each for report in reports if report.when == "call" for each in report.user_properties):
        if name.startswith("twin "):
            sums[name.removeprefix("twin ")] = sums.get(name.removeprefix("twin "), 0) + value
    if sums:
        told = ", ".join(f"{round(value):,} {name}" for name, value in sums.items())
        terminalreporter.write_line(f"the digital twin was put through {told}")


def _strict(report):
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get(REQUIRE_ALL) == "1":
        report.outcome = "failed"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.longrepr = f"{REQUIRE_ALL}=1 and this cannot run here: {reason}"
    return report
