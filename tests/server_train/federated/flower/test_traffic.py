"""The counting proxy, and addresses as words."""

import socket
import threading

import pytest

from distill.errors import ConfigError
from server_train.federated.flower.addresses import listen, parse_address, read_pem, wait_for
from server_train.federated.flower.traffic import CountingProxy


def echo_once(listener: socket.socket, reply: bytes) -> threading.Thread:
    """A server that reads one connection to its end, then answers."""

    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1 << 16):
                pass
            connection.sendall(reply)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def talk(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_every_byte_of_both_directions_is_passed_on_and_counted():
    sent, reply = bytes(range(256)) * 4_000, b"short"
    with listen("127.0.0.1", 0) as listener, CountingProxy(listener.getsockname()) as proxy:
        for _ in range(2):
            server = echo_once(listener, reply)
            assert talk(proxy.port, sent) == reply
            server.join(timeout=10)
    assert [(c.up, c.down) for c in proxy.connections] == [(len(sent), len(reply))] * 2
    assert (proxy.total.up, proxy.total.down) == (2 * len(sent), 2 * len(reply))


def test_a_connection_without_a_server_behind_it_is_closed_and_not_counted():
    with listen("127.0.0.1", 0) as listener:
        nobody = listener.getsockname()
    with CountingProxy(nobody) as proxy:
        assert talk(proxy.port, b"") == b""
    assert proxy.connections == []


def test_a_closed_proxy_takes_no_connections():
    proxy = CountingProxy(("127.0.0.1", 1))
    proxy.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


@pytest.mark.parametrize(
    ("words", "address"),
    [("0.0.0.0:8080", ("0.0.0.0", 8080)), ("hub.example.org:1", ("hub.example.org", 1)), ("[::1]:80", ("::1", 80))],
)
def test_an_address_is_a_host_and_a_port(words, address):
    assert parse_address(words) == address


@pytest.mark.parametrize("words", ["", "8080", "host", "host:", ":80", "host:0", "host:65536", "host:http", "host:-1"])
def test_an_address_without_host_or_port_is_refused(words):
    with pytest.raises(ConfigError, match="no address"):
        parse_address(words)


def test_a_taken_port_is_told_in_words():
    with listen("127.0.0.1", 0) as listener, pytest.raises(ConfigError, match="cannot listen on 127"):
        listen("127.0.0.1", listener.getsockname()[1])


def test_an_absent_server_is_told_after_the_wait():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConfigError, match=r"no server answers at 127\.0\.0\.1:\d+ within 0\.1 seconds"):
        wait_for("127.0.0.1", port, 0.1)


def test_a_server_that_comes_late_is_found():
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    opened: list[socket.socket] = []
    timer = threading.Timer(0.3, lambda: opened.append(listen("127.0.0.1", port)))
    timer.start()
    wait_for("127.0.0.1", port, 10)
    timer.join()
    opened[0].close()


def test_a_certificate_must_be_a_readable_pem_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_pem(tmp_path / "absent.pem")
    (tmp_path / "odd.pem").write_bytes(b"\x30\x82")
    with pytest.raises(ConfigError, match="is no PEM file"):
        read_pem(tmp_path / "odd.pem")
