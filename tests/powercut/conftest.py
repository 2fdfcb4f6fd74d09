"""Says how many power cuts were tried."""


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what the tests of this folder counted."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "power cuts":
                terminalreporter.write_line(value)
