"""The link to Redis: every kind of address works, every failure is one kind, and nothing in it can be read."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from chaos.ports import free_port
from chaos.redis_servers import Server, one_server
from ringbearer.errors import ConfigurationError, RedisUnavailable
from ringbearer.redis_link import RedisLink, Script, open_redis, parse, translated
from ringbearer.storage.envelopes import Envelopes
from ringbearer.storage.vault import Vault, generate_key
from tools import require_tool

COUNT = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


def linked(url: str) -> RedisLink:
    return open_redis(url, Vault([generate_key()]))


@pytest.fixture(params=["single", "sentinel", "cluster"])
def link(request: pytest.FixtureRequest) -> Iterator[RedisLink]:
    """A link to each kind of Redis in turn."""
    if request.param == "single":
        url: str = request.getfixturevalue("redis_url")
    else:
        url = request.getfixturevalue(f"redis_{request.param}").url
    with closing(linked(url)) as opened:
        yield opened


def test_scripts_run_and_are_loaded_again_after_a_flush(link: RedisLink) -> None:
    key = f"{link.prefix}:{{a}}:count"
    assert [link.run(COUNT, [key], [2]) for _ in range(2)] == [2, 4]
    with translated():
        link.client.script_flush()
    assert link.run(COUNT, [key], [2]) == 6
    link.ping()


def test_a_server_that_is_not_there_is_unavailable_and_is_found_again(tmp_path: Path) -> None:
    server = Server(tmp_path, free_port())
    with closing(linked(server.url)) as link:
        with pytest.raises(RedisUnavailable):
            link.ping()
        try:
            for number in (1, 2):
                server.start()
                assert link.run(COUNT, ["x"], [1]) == 1, f"start {number} is empty"
                server.kill()
                with pytest.raises(RedisUnavailable):
                    link.run(COUNT, ["x"], [1])
        finally:
            server.kill()


def test_a_server_that_hangs_is_given_up(redis_server: Server, redis_url: str) -> None:
    with (
        closing(open_redis(redis_url, Vault([generate_key()]), timeout=0.1)) as link,
        redis_server.client() as other,
    ):
        link.ping()
        other.execute_command("CLIENT", "PAUSE", 1_000)
        with pytest.raises(RedisUnavailable):
            link.ping()
        other.ping()  # is answered when the pause is over, as everything
        link.ping()


def test_a_server_that_is_full_is_unavailable(tmp_path: Path) -> None:
    with (
        one_server(tmp_path, ("--maxmemory", "1mb", "--maxmemory-policy", "noeviction")) as server,
        closing(linked(server.url)) as link,
    ):
        fill = Script("return redis.call('SET', KEYS[1], string.rep('x', 100000))")
        with pytest.raises(RedisUnavailable, match="memory"):
            [link.run(fill, [f"k{number}"], []) for number in range(100)]


@pytest.mark.parametrize("who", ["nobody", "reader"])
def test_a_user_that_may_not_is_unavailable_and_its_password_is_not_shown(
    who: str, redis_server: Server, redis_url: str
) -> None:
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "reader", "on", ">t0p-secret", "~*", "+get", "+ping")
    url = f"redis://{who}:t0p-secret@127.0.0.1:{redis_server.port}/0"
    with closing(linked(url)) as link, pytest.raises(RedisUnavailable) as caught:
        link.run(COUNT, ["x"], [1])
    assert "t0p-secret" not in f"{caught.value}{link!r}"


def test_a_user_that_may_does(redis_server: Server, redis_url: str) -> None:
    with redis_server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "queue", "on", ">p%40ss", "~rb:*", "+@all")
        admin.execute_command("ACL", "SETUSER", "queue", ">p@ss")
    with closing(linked(f"redis://queue:p%40ss@127.0.0.1:{redis_server.port}/0")) as link:
        assert link.run(COUNT, [f"{link.prefix}:x"], [1]) == 1


def test_tls_checks_both_sides(tmp_path: Path) -> None:
    binary = Path(require_tool("redis-server"))
    authority, stranger = trustme.CA(), trustme.CA()
    mine, hers = authority.issue_cert("127.0.0.1"), authority.issue_cert("worker.example")
    for name, ca, cert in (
        ("server", authority, mine),
        ("client", authority, hers),
        ("other", stranger, hers),
    ):
        ca.cert_pem.write_to_path(tmp_path / f"{name}-ca.pem")
        cert.private_key_pem.write_to_path(tmp_path / f"{name}-key.pem")
        cert.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    port = free_port()
    server = Server(
        tmp_path / "data",
        port,
        (
            "--port", "0", "--tls-port", str(port),
            "--tls-cert-file", str(tmp_path / "server.pem"),
            "--tls-key-file", str(tmp_path / "server-key.pem"),
            "--tls-ca-cert-file", str(tmp_path / "server-ca.pem"),
        ),
        binary,
    )  # fmt: skip
    try:
        server.start()
        base = f"rediss://127.0.0.1:{port}/0?ca_file={tmp_path}/"
        client = f"&cert_file={tmp_path}/client.pem&key_file={tmp_path}/client-key.pem"
        with closing(linked(base + "client-ca.pem" + client)) as link:
            link.ping()
        for wrong in (base + "client-ca.pem", base + "other-ca.pem" + client):
            with closing(linked(wrong)) as link, pytest.raises(RedisUnavailable):
                link.ping()
    finally:
        server.kill()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "http://host",
        "redis+raft://host",
        "redis+://host",
        "redis://",
        "redis://host:port",
        "redis://host:99999",
        "redis://host/first",
        "redis://host?decode_responses=1",
        "rediss://host?ca_file=/nowhere/ca.pem",
        "redis+sentinel://host",
        "redis+cluster://host/3",
        "redis://a:t0p-secret@host:port",
    ],
)
def test_an_address_that_cannot_work_is_a_mistake_in_the_configuration(url: str) -> None:
    with pytest.raises(ConfigurationError, match="RINGBEARER_REDIS_URL") as caught:
        parse(url)
    assert "t0p-secret" not in str(caught.value)


def test_addresses_are_read_with_everything_in_them() -> None:
    address = parse("rediss+sentinel://me:p%3Aw@a:1,[::1]:2,c/main?db=3&sentinel_password=x")
    assert address.hosts == (("a", 1), ("::1", 2), ("c", 26379))
    assert (address.kind, address.tls, address.db, address.service) == ("sentinel", True, 3, "main")
    assert (address.username, address.password) == ("me", "p:w")
    assert address.options == {"sentinel_password": "x"}
    assert parse("redis://:pw@h").password == "pw"
    assert parse("redis://h/7").db == parse("redis://h?db=7").db == 7
    assert parse("redis+cluster://h").hosts == (("h", 6379),)


# ── what lies in Redis ──────────────────────────────────────────────────────────────────────────────────────


def test_an_envelope_opens_for_what_it_was_sealed_for_only() -> None:
    key = generate_key()
    sender, receiver = Envelopes(Vault([key])), Envelopes(Vault([key]))
    sealed = sender.seal(b"payload", "evt_1")
    assert b"payload" not in sealed
    assert receiver.open(sealed, "evt_1") == b"payload"
    assert receiver.open(sealed, "evt_2") is None
    for position in range(len(sealed)):
        bent = bytearray(sealed)
        bent[position] ^= 1
        assert receiver.open(bytes(bent), "evt_1") is None
    assert [receiver.open(sealed[:length], "evt_1") for length in range(len(sealed))] == [None] * len(sealed)
    assert sender.seal(b"payload", "evt_1") != sealed


def test_envelopes_outlive_a_change_of_keys() -> None:
    old, new = generate_key(), generate_key()
    sealed = Envelopes(Vault([old])).seal(b"payload", "evt_1")
    assert Envelopes(Vault([new, old])).open(sealed, "evt_1") == b"payload"
    assert Envelopes(Vault([new])).open(sealed, "evt_1") is None


def test_names_tell_nothing_and_are_the_same_for_everyone_with_the_key() -> None:
    key = generate_key()
    one, same, other = (open_redis("redis://h", Vault([k])) for k in (key, key, generate_key()))
    assert one.hashed("studio") == same.hashed("studio") != other.hashed("studio")
    assert one.hashed("studio") != one.hashed("studio2")
    assert one.prefix == same.prefix != other.prefix
    assert not one.clustered
