"""What is shown, in the order in which one looks in an incident. Each panel says what good looks like.

`where` picks the queues: all that are chosen on the overview, one on a worker's own dashboard.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jm_ops import promql
from jm_ops.workers import Worker

WINDOW = "$__rate_interval"


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """`limits` are lines, or colours of a number: from each value on, what it means."""

    title: str
    good: str
    queries: list[Query]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    limits: dict[float, Literal["warning", "critical"]] = field(default_factory=dict)
    width: int = 8


@dataclass(frozen=True)
class Row:
    title: str
    panels: list[Panel]


def overview() -> list[Row]:
    where = 'namespace=~"$namespace", queue=~"$queue"'
    return [_verdict(where), *_rows(where, 'queue=~"($queue)[.]dead"', by_type=False), _process(where)]


def worker(one: Worker) -> list[Row]:
    where = f'namespace=~"$namespace", queue="{one.queue}"'
    rows = [_verdict(where), *_rows(where, f'queue="{one.queue}.dead"', by_type=True)]
    if one.name == "record-event-worker":
        rows.append(_records())
    return [*rows, _process(where)]


def _verdict(where: str) -> Row:
    dead = promql.increase("jm_mq_dead_letters_total", "1h", where)
    return Row(
        "Is anything wrong?",
        [
            Panel(
                "Alerts",
                "Good: 0. Otherwise each has its page in docs/runbooks.md; begin there.",
                [Query('sum(ALERTS{alertname=~"JmMq.*", alertstate="firing"}) or vector(0)', "firing")],
                kind="stat",
                limits={1: "critical"},
                width=4,
            ),
            Panel(
                "Queues without a consumer",
                "Good: 0. A queue counts when no replica that runs is registered for it.",
                [
                    Query(
                        f"count(max by ({promql.QUEUE}) ({promql.select('jm_mq_consumer_ready', where)}) == 0) or vector(0)",
                        "queues",
                    )
                ],
                kind="stat",
                limits={1: "critical"},
                width=4,
            ),
            Panel(
                "Longest wait",
                "Good: seconds to minutes. A task that is published now waits this long at the present rate; above 15 "
                "minutes and growing is an alert. No value: nothing waits.",
                [Query(f"max({promql.wait('5m', where)})", "wait")],
                unit="s",
                kind="stat",
                limits={300: "warning", 900: "critical"},
                width=4,
            ),
            Panel(
                "Dead letters, last hour",
                "Good: 0. Each is a note that stays unfinished until somebody puts it back.",
                [Query(f"sum({dead})", "dead letters")],
                kind="stat",
                limits={1: "critical"},
                width=4,
            ),
            Panel(
                "Replicas that consume",
                "Good: all that run. Fewer means that some are not registered with the broker: see the third row.",
                [
                    Query(f"sum({promql.select('jm_mq_consumer_ready', where)})", "consume"),
                    Query(f"count({promql.select('jm_mq_consumer_ready', where)})", "run"),
                ],
                kind="stat",
                width=4,
            ),
            Panel(
                "Oldest unacked, of consumer_timeout",
                "Good: below 50 %. The broker closes a channel at 100 %, half an hour by default; from 80 % on is an alert.",
                [Query(f"max({promql.oldest(where)})", "oldest")],
                unit="percentunit",
                kind="stat",
                limits={0.5: "warning", 0.8: "critical"},
                width=4,
            ),
        ],
    )


def _rows(where: str, dead: str, *, by_type: bool) -> list[Row]:
    return [
        _waiting(where, dead),
        _consuming(where),
        _work(where, by_type=by_type),
        _failing(where, by_type=by_type),
        _broker(where),
    ]


def _waiting(where: str, dead: str) -> Row:
    # The broker runs in a namespace of its own.
    broker_where = where.replace('namespace=~"$namespace", ', "") + ', queue!~".*[.]dead"'
    return Row(
        "Does work wait?",
        [
            Panel(
                "Backlog",
                "Good: near zero, or a hill that comes down by itself. Bad: a slope that only rises.",
                [Query(promql.backlog(where), "{{queue}}")],
            ),
            Panel(
                "Backlog's slope",
                "Good: around zero, below it after a peak. Above zero more arrives than is finished.",
                [Query(promql.slope("10m", where), "{{queue}}")],
                unit="mps",
                limits={0: "warning"},
            ),
            Panel(
                "Wait of a new task",
                "Good: below the dashed lines of 5 and 15 minutes. It is the backlog over the rate at which messages leave.",
                [Query(promql.wait("5m", where), "{{queue}}")],
                unit="s",
                limits={300: "warning", 900: "critical"},
            ),
            Panel(
                "Waiting, by the broker's own count",
                "Good: the same as Backlog. Where no worker runs, only the broker still counts.",
                [
                    Query(
                        f"sum by (queue) ({promql.select('rabbitmq_detailed_queue_messages_ready', broker_where)})",
                        "{{queue}}",
                    )
                ],
            ),
            Panel(
                "With consumers, by the broker's own count",
                "Good: at most concurrency times prefetch for each replica. It is what KEDA counts beside the backlog.",
                [
                    Query(
                        f"sum by (queue) ({promql.select('rabbitmq_detailed_queue_messages_unacked', broker_where)})",
                        "{{queue}}",
                    )
                ],
            ),
            Panel(
                "In dead-letter queues",
                "Good: 0. It falls only when somebody puts messages back or removes them.",
                [
                    Query(
                        f"sum by (queue) ({promql.select('rabbitmq_detailed_queue_messages_ready', dead)})", "{{queue}}"
                    )
                ],
                limits={1: "critical"},
            ),
        ],
    )


def _consuming(where: str) -> Row:
    return Row(
        "Does anybody work?",
        [
            Panel(
                "Consumers registered with the broker",
                "Good: replicas times concurrency, and flat. Zero is an alert.",
                [Query(f"max by ({promql.QUEUE}) ({promql.select('jm_mq_queue_consumers', where)})", "{{queue}}")],
            ),
            Panel(
                "Replicas that consume",
                "Good: 1 for each replica. 0 for long: docs/runbooks.md, consumer not registered.",
                [Query(f"{promql.select('jm_mq_consumer_ready', where)}", "{{queue}} {{instance}}")],
            ),
            Panel(
                "Replicas that drain",
                "Good: 0, and 1 for each replica that a rollout replaces, for less than its drain_timeout.",
                [Query(f"{promql.select('jm_mq_draining', where)}", "{{queue}} {{instance}}")],
            ),
            Panel(
                "In flight, of capacity",
                "Good: below 1 most of the time. At 1 with a backlog the replicas are too few; at 0 with a backlog they hang.",
                [
                    Query(
                        f"sum by ({promql.QUEUE}) ({promql.select('jm_mq_in_flight', where)}) "
                        f"/ sum by ({promql.QUEUE}) ({promql.select('jm_mq_workers', where)})",
                        "{{queue}}",
                    )
                ],
                unit="percentunit",
            ),
            Panel(
                "In flight",
                "Good: moves with the load. A flat line at the same height for longer than handler_timeout hangs.",
                [Query(f"{promql.select('jm_mq_in_flight', where)}", "{{queue}} {{instance}}")],
            ),
            Panel(
                "Oldest unacked",
                "Good: the length of one task. Longer, and at work in flight: a task that hangs, or waits in a buffer.",
                [
                    Query(
                        f"max by ({promql.QUEUE}) ({promql.select('jm_mq_oldest_unacked_seconds', where)})", "{{queue}}"
                    )
                ],
                unit="s",
            ),
            Panel(
                "Oldest unacked, of consumer_timeout",
                "Good: below the dashed line at 80 %, which is an alert. At 100 % the broker would close the channel.",
                [Query(f"max by ({promql.QUEUE}) ({promql.oldest(where)})", "{{queue}}")],
                unit="percentunit",
                limits={0.8: "warning", 1: "critical"},
            ),
        ],
    )


def _work(where: str, *, by_type: bool) -> Row:
    by = f"{promql.QUEUE}, type" if by_type else promql.QUEUE
    legend = "{{type}}" if by_type else "{{queue}}"
    bucket = promql.select("jm_mq_handler_seconds_bucket", where, 'outcome="ok"')
    percentiles = [
        Panel(
            f"Handler time, p{percent}",
            good,
            [Query(f"histogram_quantile({percent / 100}, sum by (le, {by}) (rate({bucket}[{WINDOW}])))", legend)],
            unit="s",
        )
        for percent, good in [
            (
                50,
                "Good: flat. Runs that succeeded; half of them took less. It rises with the engine's load or longer texts.",
            ),
            (95, "Good: below a third of handler_timeout. It rises before anything times out."),
            (99, "Good: below handler_timeout. At it, runs are cut off and begin anew."),
        ]
    ]
    return Row(
        "How fast is it?",
        [
            Panel(
                "Finished" + (" by type" if by_type else ""),
                "Good: follows what arrives. Zero with a backlog is an incident.",
                [Query(promql.rate("jm_mq_deliveries_total", WINDOW, where, 'outcome="ack"', by=by), legend)],
                unit="mps",
            ),
            Panel(
                "Deliveries by how they ended",
                "Good: nearly all ack. `lost` are settlements that the broker never got.",
                [Query(promql.rate("jm_mq_deliveries_total", WINDOW, where, by="outcome"), "{{outcome}}")],
                unit="mps",
            ),
            Panel(
                "Handler time",
                "Good: one dark band. A second band above it is a slow kind of task, or a slow engine.",
                [
                    Query(
                        f"sum by (le) (rate({promql.select('jm_mq_handler_seconds_bucket', where)}[{WINDOW}]))",
                        "{{le}}",
                    )
                ],
                unit="s",
                kind="heatmap",
            ),
            *percentiles,
        ],
    )


def _failing(where: str, *, by_type: bool) -> Row:
    by = "type, reason" if by_type else "queue, reason"
    legend = ("{{type}}" if by_type else "{{queue}}") + " {{reason}}"
    return Row(
        "What fails?",
        [
            Panel(
                "Share of runs that are retries",
                "Good: below a few percent. Above 30 % for five minutes is an alert: something that every task needs fails.",
                [
                    Query(
                        f"{promql.rate('jm_mq_retries_total', WINDOW, where)} / ({promql.rate('jm_mq_handler_seconds_count', WINDOW, where)} > 0)",
                        "{{queue}}",
                    )
                ],
                unit="percentunit",
                limits={0.3: "warning"},
            ),
            Panel(
                "Retries by reason",
                "Good: none. `error`: the log and Sentry say which; `timeout`: handler_timeout passed; `panic`: a defect.",
                [Query(promql.rate("jm_mq_retries_total", WINDOW, where, by=by), legend)],
                unit="cps",
            ),
            Panel(
                "Runs that failed, by how",
                "Good: none. `permanent` and `undecodable` are dead-lettered at once, the others are tried again.",
                [
                    Query(
                        promql.rate("jm_mq_handler_seconds_count", WINDOW, where, 'outcome!="ok"', by="outcome"),
                        "{{outcome}}",
                    )
                ],
                unit="cps",
            ),
            Panel(
                "Dead letters by kind",
                "Good: none. `exhausted`: its cause is gone or not, then put back; `unknown_type`, `undecodable`: a producer's mistake.",
                [
                    Query(
                        promql.increase("jm_mq_dead_letters_total", "5m", where, by="queue, kind"), "{{queue}} {{kind}}"
                    )
                ],
                limits={1: "critical"},
            ),
            Panel(
                "Handed back (nacks)",
                "Good: only while replicas are replaced. `true`: back to the queue; `false`: the broker's policy decides.",
                [
                    Query(
                        promql.rate("jm_mq_nacks_total", WINDOW, where, by="queue, requeue"),
                        "{{queue}} requeue={{requeue}}",
                    )
                ],
                unit="cps",
            ),
        ],
    )


def _broker(where: str) -> Row:
    here = promql.beside(where)
    return Row(
        "Is it the broker?",
        [
            Panel(
                "Reconnects by reason",
                "Good: none. `lost`: network or broker; `cancelled`: the queue was deleted or its node left; `timeout`: a message was "
                "held longer than consumer_timeout; `forgotten`: the broker lost its consumers; `panic`: a defect.",
                [
                    Query(
                        promql.increase("jm_mq_reconnects_total", "5m", where, by="queue, reason"),
                        "{{queue}} {{reason}}",
                    )
                ],
                limits={3: "warning"},
            ),
            Panel(
                "Connections",
                "Good: one as consumer and, where something was published, publisher.connections more for each replica; flat.",
                [Query(f"sum by (namespace, role) (jm_mq_connections {here})", "{{role}}")],
            ),
            Panel(
                "Connections that the broker blocks",
                "Good: 0. The broker has a memory or disk alarm, and answers wait.",
                [Query(f"sum by (namespace, role) (jm_mq_connection_blocked {here})", "{{role}}")],
                limits={1: "critical"},
            ),
            Panel(
                "Lost settlements",
                "Good: 0 but for lost connections. The work is done, and the broker gives the message out again.",
                [
                    Query(
                        promql.increase("jm_mq_lost_acks_total", "5m", where, by="queue, reason"),
                        "{{queue}} {{reason}}",
                    )
                ],
            ),
            Panel(
                "Results kept across a lost connection",
                "Good: `used` follows each reconnect. `evicted`: the message came back elsewhere, or too late.",
                [
                    Query(
                        promql.increase("jm_mq_kept_results_total", "5m", where, by="queue, fate"), "{{queue}} {{fate}}"
                    )
                ],
            ),
            Panel(
                "Publisher's channels",
                "Good: few leased, the rest idle. All leased: publishes wait for a channel, and the broker or the network is slow.",
                [
                    Query(f"sum by (namespace, state) (jm_mq_publisher_channels {here})", "{{state}}"),
                    Query(f"sum by (namespace) (jm_mq_publisher_channels_max {here})", "at most"),
                ],
            ),
            Panel(
                "Publishes by how they ended",
                "Good: all confirmed. `timed_out`: the broker blocks or hangs; `unroutable`: an exchange lost its queue.",
                [
                    Query(
                        f"sum by (exchange, outcome) (rate(jm_mq_publishes_total[{WINDOW}]) {here})",
                        "{{exchange}} {{outcome}}",
                    )
                ],
                unit="mps",
            ),
            Panel(
                "Replies by how they ended",
                "Good: all confirmed. All others are dropped and their tasks done; `invalid`: somebody asks at an address that the broker fails over.",
                [Query(f"sum by (outcome) (rate(jm_mq_replies_total[{WINDOW}]) {here})", "{{outcome}}")],
                unit="mps",
            ),
            Panel(
                "Publish to confirm, p95",
                "Good: milliseconds; tens of them with quorum queues. It rises before the broker blocks.",
                [
                    Query(
                        f"histogram_quantile(0.95, sum by (le, exchange) (rate(jm_mq_publish_confirm_seconds_bucket[{WINDOW}]) {here}))",
                        "{{exchange}}",
                    )
                ],
                unit="s",
            ),
        ],
    )


def _records() -> Row:
    where = 'namespace=~"$namespace"'
    return Row(
        "What becomes of records?",
        [
            Panel(
                "Record events by outcome",
                "Good: mostly `applied`. Many `repeated` or `late`: producers send twice, or a queue was put back.",
                [Query(promql.rate("jm_record_events_total", WINDOW, where, by="outcome"), "{{outcome}}")],
                unit="cps",
            ),
            Panel(
                "Tasks started, by stage",
                "Good: in step with new records. Nothing while events arrive: a stage is off, or its events come late.",
                [Query(promql.rate("jm_record_followups_total", WINDOW, where, by="stage"), "{{stage}}")],
                unit="cps",
            ),
            Panel(
                "Database connections",
                "Good: few in use. All of them in use: events wait for a connection, and the database is slow or locked.",
                [
                    Query(f"sum by (state) ({promql.select('jm_record_database_connections', where)})", "{{state}}"),
                    Query(f"sum({promql.select('jm_record_database_connections_max', where)})", "at most"),
                ],
            ),
        ],
    )


def _process(where: str) -> Row:
    def ours(expr: str) -> str:
        return promql.ours(expr, where)

    legend = "{{queue}} {{instance}}"
    return Row(
        "Is it the process?",
        [
            Panel(
                "What runs",
                "Good: one version and revision of each worker; two while a rollout is under way.",
                [
                    Query(
                        f"count by (worker, version, revision) (jm_build_info {promql.beside(where)})",
                        "{{worker}} {{version}} {{revision}}",
                    )
                ],
            ),
            Panel(
                "CPU",
                "Good: far below its node's share. Decoding recordings takes a core for seconds.",
                [Query(ours(f"rate(process_cpu_seconds_total[{WINDOW}])"), legend)],
            ),
            Panel(
                "Memory",
                "Good: flat after the first tasks, below the container's limit. What only rises is a leak.",
                [Query(ours("process_resident_memory_bytes"), legend)],
                unit="bytes",
            ),
            Panel(
                "Starts within 15 minutes",
                "Good: 0. More than 3 is an alert: the process ends by itself.",
                [Query(ours("changes(process_start_time_seconds[15m])"), legend)],
                limits={3: "critical"},
            ),
            Panel(
                "Open files, of the limit",
                "Good: a few percent, flat. What only rises is a leak of connections.",
                [Query(ours("(process_open_fds / process_max_fds)"), legend)],
                unit="percentunit",
            ),
            Panel(
                "Threads",
                "Good: flat. One for each connection, and those that decode.",
                [Query(ours("process_threads"), legend)],
            ),
            Panel(
                "Log lines dropped",
                "Good: 0. Nobody reads the container's output fast enough, and the log misses lines.",
                [Query(ours("increase(jm_log_lines_dropped_total[5m])"), legend)],
                limits={1: "warning"},
            ),
        ],
    )
