"""Addresses and names under which a control plane is reached."""

from pathlib import Path

import pytest

from edgewise.control.config import ControlConfig, api_address, certificate_hosts, gateway_addresses


def config(**settings) -> ControlConfig:
    return ControlConfig(data=Path("x"), **settings)


def test_public_hosts_come_first_and_alone():
    given = config(public_hosts=("edge.example", "10.0.0.5"))
    assert gateway_addresses(given, 7421) == ("https://edge.example:7421", "https://10.0.0.5:7421")
    assert certificate_hosts(given)[:2] == ("edge.example", "10.0.0.5")
    assert {"localhost", "127.0.0.1", "::1"} <= set(certificate_hosts(given))


def test_a_bound_address_is_the_one_to_give_out():
    assert gateway_addresses(config(gateway_host="127.0.0.1"), 1) == ("https://127.0.0.1:1",)
    assert gateway_addresses(config(gateway_host="::1"), 1) == ("https://[::1]:1",)


def test_listening_everywhere_gives_out_no_wildcard():
    for address in (*gateway_addresses(config(), 1), api_address(config(api_host="0.0.0.0"), 2)):
        assert "0.0.0.0" not in address
    assert "0.0.0.0" not in certificate_hosts(config())


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "https://127.0.0.1:2"), ("::1", "https://[::1]:2"), ("a.b", "https://a.b:2")])
def test_the_api_is_where_it_was_bound(host, address):
    assert api_address(config(api_host=host), 2) == address


def test_no_more_addresses_than_a_token_takes():
    assert len(gateway_addresses(config(public_hosts=tuple(f"h{i}" for i in range(20))), 1)) == 8
