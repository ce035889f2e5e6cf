"""Two demos on one machine do not meet: each finds a domain and an address of its own."""

import socket

import pytest

from spear_bringup.graph import free_domain_id, free_loopback_host, ports_are_free


def test_an_address_with_a_listener_is_not_free():
    host = free_loopback_host()
    assert ports_are_free(host)
    with socket.socket() as other:
        other.bind((host, 1338))
        other.listen()
        assert not ports_are_free(host)


def test_two_domains_at_once_differ(monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    with free_domain_id() as first, free_domain_id() as second:
        assert first != second


def test_a_domain_that_is_given_is_used_and_a_wrong_one_is_named(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "77")
    with free_domain_id() as domain:
        assert domain == 77
    monkeypatch.setenv("ROS_DOMAIN_ID", "seven")
    with pytest.raises(ValueError, match="ROS_DOMAIN_ID is 'seven'"), free_domain_id():
        pass


def test_a_full_disk_is_not_taken_for_a_domain_in_use(monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    with pytest.raises(OSError, match="no room"), free_domain_id():
        raise OSError("no room")
