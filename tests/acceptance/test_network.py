"""The network and the receivers misbehave under traffic: no promise is broken, and nobody else suffers for it.

The faults and invariants carry the numbers under which they are listed in `chaos/invariants.py`.
"""

import socket
from pathlib import Path

import psycopg

from chaos.databases import Postgres
from chaos.network import FAIR, Network, Weather
from chaos.run import PATIENT, Rig
from chaos.service import plain_get, wait_for
from hostile.proxies import tunnels
from ringbearer.misbehaving import Rogues

_SECONDS = 60.0
_STORMY = Weather(delay=0.02, loss=0.1)
_PARTED = Weather(parted=True)


def _kept(rig: Rig, *, workers_lost: int = 0, cut: int = 0) -> None:
    rig.drain()
    verdict = rig.judge(workers_lost=workers_lost, cut=cut)
    assert verdict.violations == []
    assert verdict.lost == verdict.pending == 0
    assert verdict.delivered > 0
    assert rig.failures() == {}


def test_receivers_behind_a_bad_network_get_everything_in_order(tmp_path: Path) -> None:
    """F10: delay, loss, connections cut, and a partition that outlasts every timeout.

    What a receiver took may have to be sent once more, when its answer was lost; never out of order (I6).
    """
    with Rig(tmp_path / "rig", workers=1, network=True) as rig:
        network = rig.network
        assert network is not None
        rig.service.start()
        rig.set_up()
        with rig.traffic(seed=10, pause=0.02):
            rig.grows(20)
            network.be(_STORMY)
            rig.grows(40)
            cut = network.cut()
            assert cut > 0
            rig.grows(20)
            network.be(_PARTED)
            before = network.held_up
            rig.grows(40)
            _timed_out(rig)
            wait_for(lambda: network.held_up > before, _SECONDS, "a packet that is not let through")
            network.be(FAIR)
            rig.grows(20)
        # Twice may come, as after the loss of a worker, what was under way when the network was cut or parted.
        _kept(rig, workers_lost=1, cut=cut)


def _timed_out(rig: Rig) -> None:
    """Wait until an attempt has failed for want of an answer."""

    def found() -> bool:
        with rig.service.client() as client:
            answer = client.get("/v1/figures/errors", params={"window": 600})
            answer.raise_for_status()
            return "timeout" in answer.text

    wait_for(found, _SECONDS, "an exchange to time out")


def test_a_store_behind_a_bad_network_loses_nothing(breakable_postgres: Postgres, tmp_path: Path) -> None:
    """F10 between the service and PostgreSQL: publishers are refused while it is parted, and never misled."""
    given = psycopg.conninfo.conninfo_to_dict(breakable_postgres.url)
    target = f"{given['host']}/.s.PGSQL.{given.get('port', 5432)}"
    with Network(target, seed=11) as network:
        url = f"postgresql://{given['user']}@127.0.0.1:{network.port}/{given['dbname']}"
        with Rig(tmp_path / "rig", database_url=url, workers=1, timeout=PATIENT) as rig:
            rig.service.start()
            rig.set_up()
            with rig.traffic(seed=11, pause=0.02):
                rig.grows(20)
                network.be(Weather(delay=0.005, loss=0.02))
                rig.grows(40)
                assert network.cut() > 0
                rig.grows(20)
                network.be(_PARTED)
                wait_for(lambda: network.held_up > 0 and not _ready(rig), _SECONDS, "the API to be unready")
                network.be(FAIR)
                rig.service.wait_ready()
                rig.grows(20)
            _kept(rig, workers_lost=2)  # while the store is away, leases may run out


def test_a_proxy_of_ours_that_fails_is_told_and_spends_no_attempt(tmp_path: Path) -> None:
    """Deliveries wait for it, its failure stands in /health/ready and in the metrics, and both end with it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:  # free, and refusing until somebody listens
        port = listener.getsockname()[1]
    with Rig(tmp_path / "rig", workers=1, timeout=PATIENT, proxy_url=f"http://127.0.0.1:{port}") as rig:
        rig.service.start()
        rig.set_up()
        with rig.traffic(seed=12, pause=0.05):
            rig.grows(5)
        wait_for(lambda: "the proxy" in _degraded(rig).get("proxy", ""), _SECONDS, "a word about the proxy")
        assert _ready(rig)  # events are taken all the same
        with rig.service.client() as client:
            assert 'ringbearer_own_failures_total{what="proxy"}' in client.get("/metrics").text
            deliveries = client.get("/v1/deliveries").json()["items"]
        assert {each["attempt_count"] for each in deliveries} == {0}
        assert rig.seen() == []
        with Rogues() as rogues:
            proxy = rogues.serve(tunnels(), port=port)
            rig.drain()
            assert proxy.connections > 0
        _kept(rig)


def _degraded(rig: Rig) -> dict[str, str]:
    answer = plain_get(f"{rig.service.url}/health/ready", timeout=30).json()
    found: dict[str, str] = answer.get("degraded", {})
    return found


def _ready(rig: Rig) -> bool:
    answer = plain_get(f"{rig.service.url}/health/ready", timeout=30)
    return answer.status_code == 200
