"""The sample: one signed event now, and the attempt as it would be recorded."""

from standardwebhooks import Webhook

from contract.making import SECRET, endpoint
from ringbearer.delivery.guard import Guard
from ringbearer.delivery.sample import SAMPLE_TYPE, send_sample
from ringbearer.domain.deliveries import Attempt
from ringbearer.domain.endpoints import Target
from ringbearer.misbehaving import Rogues, never_answers, says


def _sample(url: str, *allowed: str, proxy: str | None = None) -> Attempt:
    target = Target(endpoint=endpoint(url=url, timeout=0.5), secrets=((SECRET, None),), version=1)
    refuse = Guard(allow_networks=allowed).check_address
    return send_sample(target, refuse=refuse, ca_file=None, public_url="", proxy=proxy)


def test_a_sample_is_signed_and_its_answer_told(rogues: Rogues) -> None:
    rogue = rogues.serve(says(b"HTTP/1.1 201 Made\r\nx-a: b\r\ncontent-length: 2\r\n\r\nok"))
    attempt = _sample(rogue.url, "127.0.0.0/8")
    assert (attempt.number, attempt.status_code, attempt.error) == (1, 201, None)
    assert (attempt.response_body, attempt.response_headers["x-a"]) == ("ok", "b")
    head, _, body = rogue.requests[0].partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert Webhook(SECRET).verify(body, headers)["type"] == SAMPLE_TYPE


def test_a_sample_to_a_receiver_that_hangs_ends_in_time(rogues: Rogues) -> None:
    attempt = _sample(rogues.serve(never_answers).url, "127.0.0.0/8")
    assert str(attempt.error).startswith("timeout: ")
    assert attempt.status_code is None


def test_a_sample_does_not_reach_what_deliveries_must_not(rogues: Rogues) -> None:
    rogue = rogues.serve(never_answers)
    assert str(_sample(rogue.url).error).startswith("blocked_address: ")
    assert rogue.connections == 0


def test_a_sample_leaves_by_the_proxy_alone(rogues: Rogues) -> None:
    rogue = rogues.serve(never_answers)
    proxy = rogues.serve(says(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"))
    attempt = _sample(rogue.url, "127.0.0.0/8", proxy=proxy.url)
    assert "the proxy answered 403" in str(attempt.error)
    assert proxy.requests[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % rogue.port)
    assert rogue.connections == 0
