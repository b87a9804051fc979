"""The tree of errors: what an operator is told, and the exit status that goes with it."""

import pytest

from appliance import errors

EXIT_CODES = {
    "MdcError": 3,
    "CheckFailed": 1,
    "ConfigError": 2,
    "ExchangeRefused": 2,
    "CannotRun": 3,
    "RingBusy": 3,
    "NotARing": 3,
}


def test_each_error_has_the_exit_status_of_its_branch() -> None:
    found = {name: kind.exit_code for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.MdcError)}
    assert found == EXIT_CODES


@pytest.mark.parametrize("name", EXIT_CODES)
def test_the_tree_at_the_top_of_the_module_is_the_tree(name: str) -> None:
    assert errors.__doc__ is not None
    [line] = [line for line in errors.__doc__.splitlines() if line.strip("│├└─ ").split(" ")[0] == name]
    assert name == "MdcError" or f" {EXIT_CODES[name]}  " in line
