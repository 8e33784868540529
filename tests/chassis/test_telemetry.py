"""Log lines tell who speaks and no secret; metrics count."""

import json
import logging
import subprocess
import sys
from pathlib import Path

from chassis.telemetry import Metrics, span_export, without_secrets

ROOT = Path(__file__).resolve().parents[2]


def test_lines_are_json_with_the_service_and_without_secrets() -> None:
    code = """
import logging, structlog
from chassis.telemetry import bind_service, configure_logging
configure_logging("info", process="edge")
log = structlog.get_logger()
log.debug("too fine")
log.info("first", access_token="t0ps3cret", body="b0dy", run="r1")
bind_service("flows")
try:
    raise ValueError("why")
except ValueError as error:
    log.error("second", exc_info=error)
logging.getLogger("library").warning("third %s", 3)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["first", "second", "third 3"]
    assert [line["service"] for line in lines] == ["edge", "flows", "flows"]
    assert lines[0]["run"] == "r1"
    assert "ValueError: why" in lines[1]["exception"]
    assert "t0ps3cret" not in done.stderr
    assert "b0dy" not in done.stderr


def test_names_that_tell_of_secrets_are_blanked() -> None:
    event = without_secrets(logging, "info", {"event": "x", "Authorization": "y", "user_password": "z", "key_count": 1})
    assert event == {"event": "x", "Authorization": "[not logged]", "user_password": "[not logged]", "key_count": 1}


def test_rpcs_are_counted_by_status_and_time() -> None:
    metrics = Metrics()
    record = metrics.rpc("/a.B/C")
    for seconds in (0.0001, 0.002, 99.0):
        record("OK", seconds)
    record("NOT_FOUND", 0.002)
    text = metrics.render().decode()
    assert 'millrace_rpc_total{rpc="/a.B/C",status="OK"} 3.0' in text
    assert 'millrace_rpc_total{rpc="/a.B/C",status="NOT_FOUND"} 1.0' in text
    assert 'millrace_rpc_seconds_bucket{le="0.0025",rpc="/a.B/C"} 3.0' in text
    assert 'millrace_rpc_seconds_bucket{le="+Inf",rpc="/a.B/C"} 4.0' in text


def test_a_metric_asked_for_twice_is_one() -> None:
    metrics = Metrics()
    metrics.counter("runs", "Runs.", ["flow"]).labels("a").inc()
    metrics.counter("runs", "Runs.", ["flow"]).labels("a").inc()
    assert 'runs_total{flow="a"} 2.0' in metrics.render().decode()


def test_without_an_endpoint_opentelemetry_is_not_imported() -> None:
    assert span_export("", "flows") is None
    code = "import sys, chassis.lifecycle; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
