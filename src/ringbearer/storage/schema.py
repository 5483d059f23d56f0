"""The tables, for both databases; times are whole microseconds since the epoch.

suppliers ◂── endpoints ◂── endpoint_secrets        what is configured
event_shapes                                        how data looked in older versions of an event type
events ◂── deliveries ◂── attempts                  what happened; ranges of ids are ranges of time
              ▲
             jobs                                   what is still to do: one row per delivery that is not
                                                    delivered or cancelled; a dead letter stays until replayed
queue_depth     how many jobs there are per lane and state, kept by whoever moves them
idempotency     which event a publisher's key already stands for
replays         replays in progress and done
flows, flow_costs, lane_clocks   what processes tell each other of the fair order within a lane
parked          endpoints that take nothing for now, so that their deliveries are not in the way
plans           documents that steer the running system: priorities, the queue, the season
rate_windows    when rate-limited endpoints were last sent to
nodes           which processes run, and what they last reported of themselves
leaders         who leads what only one process may do, and until when
breaker_calls   how the latest calls of endpoints that fail went, as all workers made them
breakers        endpoints that are, or were, left alone, numbered by breaker_clock for those who follow
scaling         one row: the policy, the latest decision on the number of workers, who shall run how many
scaling_decisions   what was decided or changed, by whom and why
forecasts       what was expected of each hour a day before it came
alerts, alert_notices, alert_silences   what was wrong, who was told of it, and what nobody is told of
alert_channels, alert_rules             how people are told, and what of the rules was changed
rollups         what was measured, by minute, hour and day; and how far minutes were summed up (rollup_marks)
config_version  grows with each change of a supplier or endpoint, so that caches can follow

On PostgreSQL events, deliveries and attempts are partitioned by day, so that retention drops whole tables.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

metadata = MetaData()

Id = Text().with_variant(Text(collation="C"), "postgresql")
"""Ids compare byte by byte, so that their order is the order of time."""


def _clock(name: str) -> Table:
    """One row with a number that grows with each change of something, for those who follow it."""
    return Table(
        name,
        metadata,
        Column("id", SmallInteger, primary_key=True, autoincrement=False),
        Column("version", BigInteger, nullable=False),
    )


suppliers = Table(
    "suppliers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text),
    Column("tier", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False, server_default=text("false")),
    Column("rate_requests", Integer),
    Column("rate_period", Float),
    Column("max_concurrency", Integer),
    Index("suppliers_version", "version"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Id, primary_key=True),
    Column("supplier_id", Id, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", Text, nullable=False),
    Column("description", Text),
    Column("headers_sealed", LargeBinary, nullable=False),
    Column("rate_requests", Integer),
    Column("rate_period", Float),
    Column("max_concurrency", Integer),
    Column("timeout", Float, nullable=False),
    Column("retry_schedule", Text, nullable=False),
    Column("signing", Text, nullable=False),
    Column("public_key", Text),
    Column("enabled", Boolean, nullable=False),
    Column("disabled_reason", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False, server_default=text("false")),
    Column("options", Text, nullable=False, server_default=text("'{}'")),
    Column("credentials_sealed", LargeBinary),
    Column("event_version", Text),
    Index("endpoints_supplier", "supplier_id", "id"),
    Index("endpoints_version", "version"),
)

endpoint_secrets = Table(
    "endpoint_secrets",
    metadata,
    Column("endpoint_id", Id, primary_key=True),
    Column("created_at", BigInteger, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("expires_at", BigInteger),
)

event_shapes = Table(
    "event_shapes",
    metadata,
    Column("event_type", Id, primary_key=True),
    Column("version", Id, primary_key=True),
    Column("expression", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

config_version = _clock("config_version")

keys = Table(
    "keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("scope", Text, nullable=False),
    Column("name", Text),
    Column("last_four", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("supplier_id", Id, nullable=False),
    Column("type", Text, nullable=False),
    Column("timestamp", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("idempotency_key", Text),
    Column("occasion_date", Text),
    Column("deliver_at", BigInteger),
    Column("ordering_key", Text),
    Column("tags", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("asked", Text),
    Column("lane_reason", Text),
    Column("trace", Text),
    postgresql_partition_by="RANGE (id)",
)

ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("digest", Id, primary_key=True),
    Column("until", BigInteger, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("event_id", Id, nullable=False),
    Column("endpoint_id", Id, nullable=False),
    Column("supplier_id", Id, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("reason", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Index("deliveries_supplier", "supplier_id", "id"),
    sqlite_with_rowid=False,
    postgresql_partition_by="RANGE (id)",
)

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", Id, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("started_at", BigInteger, nullable=False),
    Column("duration", BigInteger, nullable=False),
    Column("status_code", SmallInteger),
    Column("error", Text),
    Column("response_body", Text),
    Column("response_headers", Text),
    Column("timing", Text),
    postgresql_partition_by="RANGE (delivery_id)",
)

jobs = Table(
    "jobs",
    metadata,
    Column("delivery_id", Id, primary_key=True),
    Column("event_id", Id, nullable=False),
    Column("endpoint_id", Id, nullable=False),
    Column("supplier_id", Id, nullable=False),
    Column("state", Text, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("rank", BigInteger, nullable=False),
    Column("due_at", BigInteger),
    Column("attempt", Integer, nullable=False),
    Column("attempt_base", Integer, nullable=False),
    Column("ordering_key", Text),
    Column("reason", Text),
    Column("accepted_at", BigInteger, nullable=False),
    Column("worker", Text),
    Column("ready_at", BigInteger),
    sqlite_with_rowid=False,
)


def _partial(name: str, *columns: str, where: str) -> None:
    """An index over some jobs only: each state has the one order that its reader walks."""
    Index(name, *(jobs.c[c] for c in columns), sqlite_where=text(where), postgresql_where=text(where))


_partial("jobs_ready", "lane", "rank", where="state = 'ready'")
_partial("jobs_scheduled", "due_at", where="state = 'scheduled'")
_partial("jobs_leased", "due_at", where="state = 'leased'")
_partial("jobs_held", "endpoint_id", "delivery_id", where="state = 'held'")
_partial("jobs_dead", "delivery_id", where="state = 'dead'")
_partial(
    "jobs_waiting",
    "endpoint_id",
    "ordering_key",
    "delivery_id",
    where="ordering_key IS NOT NULL AND state = 'waiting'",
)
_partial(
    "jobs_under_way",
    "endpoint_id",
    "ordering_key",
    where="ordering_key IS NOT NULL AND state <> 'waiting' AND state <> 'dead'",
)

queue_depth = Table(
    "queue_depth",
    metadata,
    Column("shard", SmallInteger, primary_key=True, autoincrement=False),
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
    Column("state", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
)

flows = Table(
    "flows",
    metadata,
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
    Column("endpoint_id", Id, primary_key=True),
    Column("supplier_id", Id, nullable=False),
    Column("finish", BigInteger, nullable=False),
    Column("told_at", BigInteger, nullable=False),
    Index("flows_told", "told_at"),
    sqlite_with_rowid=False,
)

flow_costs = Table(
    "flow_costs",
    metadata,
    Column("endpoint_id", Id, primary_key=True),
    Column("cost", BigInteger, nullable=False),
    Column("told_at", BigInteger, nullable=False),
    Index("flow_costs_told", "told_at"),
    sqlite_with_rowid=False,
)

lane_clocks = Table(
    "lane_clocks",
    metadata,
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
    Column("v", BigInteger, nullable=False),
)

parked = Table(
    "parked",
    metadata,
    Column("endpoint_id", Id, primary_key=True),
    Column("until", BigInteger, nullable=False),
    Column("spacing", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("parked_at", BigInteger, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    Column("name", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("supplier_id", Id, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("event_id", Id, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("deliveries", Integer, nullable=False),
    Index("idempotency_event", "event_id"),
)

replays = Table(
    "replays",
    metadata,
    Column("id", Id, primary_key=True),
    Column("filter", Text, nullable=False),
    Column("matched", BigInteger, nullable=False),
    Column("moved", BigInteger, nullable=False),
    Column("cursor", Id, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Index(
        "replays_open",
        "id",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
)

rate_windows = Table(
    "rate_windows",
    metadata,
    Column("key", Id, primary_key=True),
    Column("sends", Text, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("beat_at", BigInteger, nullable=False),
    Column("signals", Text, nullable=False),
)

leaders = Table(
    "leaders",
    metadata,
    Column("name", Id, primary_key=True),
    Column("holder", Id, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("term", BigInteger, nullable=False),
)

breakers = Table(
    "breakers",
    metadata,
    Column("endpoint_id", Id, primary_key=True),
    Column("supplier_id", Id, nullable=False),
    Column("state", Text, nullable=False),
    Column("forced", Text),
    Column("since", BigInteger, nullable=False),
    Column("opened", Integer, nullable=False),
    Column("probe_at", BigInteger, nullable=False),
    Column("reason", Text),
    Column("version", BigInteger, nullable=False),
    Index("breakers_version", "version"),
)

breaker_calls = Table(
    "breaker_calls",
    metadata,
    Column("endpoint_id", Id, primary_key=True),
    Column("calls", Text, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

breaker_clock = _clock("breaker_clock")

scaling = Table(
    "scaling",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("policy", Text, nullable=False),
    Column("decision", Text),
    Column("assignments", Text, nullable=False),
    Column("term", BigInteger, nullable=False),
)

scaling_decisions = Table(
    "scaling_decisions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("current", Integer, nullable=False),
    Column("desired", Integer, nullable=False),
    Column("rule", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("inputs", Text, nullable=False),
)

forecasts = Table(
    "forecasts",
    metadata,
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("made_at", BigInteger, nullable=False),
    Column("expected", Float, nullable=False),
    Column("upper", Float, nullable=False),
)

rollups = Table(
    "rollups",
    metadata,
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("dimension", Id, primary_key=True),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Id, primary_key=True),
    Column("process", Id, primary_key=True),
    Column("attempts", BigInteger, nullable=False),
    Column("delivered", BigInteger, nullable=False),
    Column("receiver", BigInteger, nullable=False),
    Column("ours", BigInteger, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("dead", BigInteger, nullable=False),
    Column("sketches", Text, nullable=False),
    Index("rollups_key", "level", "dimension", "key", "at"),
    sqlite_with_rowid=False,
)

rollup_marks = Table(
    "rollup_marks",
    metadata,
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("until", BigInteger, nullable=False),
)

alert_rules = Table(
    "alert_rules",
    metadata,
    Column("id", Id, primary_key=True),
    Column("body", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

alert_channels = Table(
    "alert_channels",
    metadata,
    Column("id", Id, primary_key=True),
    Column("body", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("state", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("alerts_state", "state", "updated_at"),
)

alert_notices = Table(
    "alert_notices",
    metadata,
    Column("alert_id", Id, primary_key=True),
    Column("channel_id", Id, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("error", Text),
)

alert_silences = Table(
    "alert_silences",
    metadata,
    Column("id", Id, primary_key=True),
    Column("body", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
)

reports = Table(
    "reports",
    metadata,
    Column("month", Id, primary_key=True),
    Column("body", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
)

commands = Table(
    "commands",
    metadata,
    Column("id", Id, primary_key=True),
    Column("body", Text, nullable=False),
    Column("workers", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Index("commands_asked", "asked_at"),
)

command_answers = Table(
    "command_answers",
    metadata,
    Column("command_id", Id, primary_key=True),
    Column("worker", Id, primary_key=True),
    Column("answered_at", BigInteger, nullable=False),
    Column("result", Text, nullable=False),
    Column("error", Text),
)

PARTITIONED = {"events": "evt", "deliveries": "dlv", "attempts": "dlv"}
"""The tables that PostgreSQL keeps by day, with the prefix of the ids that they are split by."""
