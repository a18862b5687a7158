"""The alerts, each with its reason and its page in docs/runbooks.md."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from jm_ops import promql
from jm_ops.workers import Worker

# Whoever serves docs/ puts the address in front of it.
RUNBOOKS = "docs/runbooks.md"


@dataclass(frozen=True)
class Alert:
    """`why` explains threshold and duration to whoever wants to change them."""

    name: str
    expr: str
    for_: str
    severity: str
    summary: str
    description: str
    why: str
    labels: dict[str, str] = field(default_factory=dict)
    keep_firing_for: str = ""

    @property
    def page(self) -> str:
        """The title of its page: `JmMqNoConsumer` is `no consumer`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name.removeprefix("JmMq")).lower()

    def rule(self) -> dict:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.for_,
            **({"keep_firing_for": self.keep_firing_for} if self.keep_firing_for else {}),
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}#{self.page.replace(' ', '-')}",
            },
        }


# A record is searchable within a quarter of an hour, or users ask where it is.
WAIT = 900
# However it came about, and even if it gets shorter: users have given up.
LONG_WAIT = 3600
# Of the broker's consumer_timeout: a message this old is on its last chance to be settled by this replica.
OLD = 0.8


def alerts(workers: list[Worker]) -> list[Alert]:
    return [
        *_backlog(workers),
        *[_no_consumer(worker) for worker in workers],
        *_consumers(),
        *_failures(),
        *_oldest(),
        *_broker(),
        *[_drain(worker) for worker in workers],
        *_process(workers),
    ]


def _backlog(workers: list[Worker]) -> list[Alert]:
    queues = "|".join(worker.queue.replace(".", "[.]") for worker in workers)
    succeeded = promql.increase("jm_mq_deliveries_total", "30m", 'outcome="ack"')
    failed = promql.increase("jm_mq_deliveries_total", "30m", 'outcome="dead_letter"')
    return [
        Alert(
            name="JmMqBacklogGrowing",
            expr=f"{promql.wait('10m')} > {WAIT} and {promql.slope('15m')} > 0",
            for_="10m",
            severity="warning",
            summary="{{ $labels.queue }}: the backlog grows, and a new task waits {{ $value | humanizeDuration }}",
            description="More arrives than is finished. The wait is the backlog over the rate of the last ten minutes.",
            why="A wait, not a count: a hundred messages are a second of record events and hours of transcription.",
        ),
        Alert(
            name="JmMqLongWait",
            expr=f"{promql.wait('30m')} < +Inf > {LONG_WAIT}",
            for_="15m",
            severity="warning",
            summary="{{ $labels.queue }}: a new task waits {{ $value | humanizeDuration }}",
            description="The backlog over the rate of the last half hour. It may get shorter, and is hours long all the same.",
            why="An hour, whether it grows or not: what is made up for within an hour after an outage is left alone.",
        ),
        Alert(
            name="JmMqNothingFinished",
            expr=f"({promql.waiting(queues)} unless ({promql.finished('30m')} > 0)) > 0",
            for_="15m",
            severity="critical",
            summary="{{ $labels.queue }}: {{ $value }} messages wait, and none has been finished for half an hour",
            description="Replicas hang, or there are none. Nothing is worked on.",
            why="Half an hour is the broker's consumer_timeout: no run takes longer. Counted by the broker where nobody runs.",
        ),
        Alert(
            name="JmMqNothingSucceeds",
            expr=f"({failed} unless ({succeeded} > 0)) > 1",
            for_="15m",
            severity="critical",
            summary="{{ $labels.queue }}: of the last half hour's tasks every one is a dead letter, {{ $value | humanize }} of them",
            description="Its backlog is short, since failing is quick. No note is finished.",
            why="Two at least, so that a single bad task of a quiet queue is a warning and no more.",
        ),
    ]


def _no_consumer(worker: Worker) -> Alert:
    ready = f'jm_mq_consumer_ready{{queue="{worker.queue}"}}'
    # For each namespace, so that a second installation does not stand in for the first one.
    known = f"max by ({promql.QUEUE}) (max_over_time({ready}[1h]))"
    return Alert(
        name="JmMqNoConsumer",
        expr=f"{known} unless max by ({promql.QUEUE}) ({ready} == 1) or absent_over_time({ready}[1h])",
        for_="2m",
        severity="critical",
        summary=f"{worker.queue}: no replica of {worker.name} consumes",
        description="Either none runs, or none is scraped, or none is registered with the broker. Nothing is worked on.",
        why="A rolling update replaces a replica before it stops one, and a broker's restart takes less than a minute. "
        "An installation that is taken away on purpose is told for an hour.",
        labels={"queue": worker.queue},
    )


def _consumers() -> list[Alert]:
    return [
        Alert(
            name="JmMqConsumerNotRegistered",
            expr=f"(jm_mq_consumer_ready == 0) and on ({promql.REPLICA}) (jm_mq_draining == 0) "
            f"and on (namespace, instance) ({promql.connected('', '2m')})",
            for_="3m",
            severity="warning",
            summary="{{ $labels.instance }} is connected, but does not consume {{ $labels.queue }}",
            description="The broker takes its connection and refuses its declaration or its consumer.",
            why="Longer than a node's restart; a refused declaration is tried again every 7.5 to 15 s. "
            "A replica that drains may take longer, and is meant to end.",
        )
    ]


def _failures() -> list[Alert]:
    dead = promql.increase("jm_mq_dead_letters_total", "10m", by=f"{promql.QUEUE}, kind")
    retries = promql.increase("jm_mq_retries_total", "15m")
    runs = promql.increase("jm_mq_handler_seconds_count", "15m")
    nacks = promql.increase("jm_mq_nacks_total", "15m")
    deliveries = promql.increase("jm_mq_deliveries_total", "15m")
    return [
        Alert(
            name="JmMqDeadLetters",
            expr=f"{dead} > 0",
            for_="0m",
            severity="warning",
            summary="{{ $labels.queue }}: {{ $value | humanize }} messages were dead-lettered in ten minutes: {{ $labels.kind }}",
            description="Each is a user's note that stays unfinished until somebody puts it back.",
            why="None is normal. Every kind is counted from 0 on, so that the first one shows as an increase.",
        ),
        Alert(
            name="JmMqDeadLettersLie",
            expr=f"{promql.dead('10m')} > 0",
            for_="1h",
            severity="warning",
            summary="{{ $labels.queue }}: {{ $value }} dead letters have been lying there for an hour or longer",
            description="It ends when the queue is empty: they are put back, or dropped by whoever knows that they can never succeed.",
            why="An hour to mend and put back. By the broker's count, since the workers only tell what arrives.",
        ),
        Alert(
            name="JmMqRetryStorm",
            expr=f"{retries} / {runs} > 0.3 and {retries} > 5",
            for_="5m",
            severity="warning",
            summary="{{ $labels.queue }}: {{ $value | humanizePercentage }} of the runs are retries",
            description="Something that every task needs fails: the engine, the database, a recording's host.",
            why="Above a third most tasks fail at least once. Five at least, so that one bad task of a slow queue is silent.",
        ),
        Alert(
            name="JmMqNackRate",
            expr=f"{nacks} / {deliveries} > 0.1 and {nacks} > 10",
            for_="10m",
            severity="warning",
            summary="{{ $labels.queue }}: {{ $value | humanizePercentage }} of the deliveries are handed back",
            description="Messages circle: they fail, go back to the queue and are given out again.",
            why="A rolling update hands back what is buffered, once; ten minutes of it are no update.",
        ),
    ]


def _oldest() -> list[Alert]:
    return [
        Alert(
            name="JmMqOldestUnacked",
            expr=f"jm_mq_oldest_unacked_seconds > {OLD} * jm_mq_consumer_timeout_seconds",
            for_="1m",
            severity="warning",
            summary="{{ $labels.instance }} has held a message of {{ $labels.queue }} for {{ $value | humanizeDuration }}",
            description="Just before the broker's consumer_timeout it is handed back, and starts anew.",
            why=f"{OLD:.0%} of consumer_timeout: enough left to look, and later than any task that goes well.",
        )
    ]


def _broker() -> list[Alert]:
    lost = promql.increase("jm_mq_lost_acks_total", "15m")
    unpublished = promql.increase(
        "jm_mq_publishes_total", "10m", 'outcome!="confirmed"', by="namespace, exchange, outcome"
    )
    return [
        Alert(
            name="JmMqReconnectLoop",
            expr=f"{promql.increase('jm_mq_reconnects_total', '10m', by=promql.REPLICA)} > 3",
            for_="0m",
            severity="warning",
            summary="{{ $labels.instance }} lost its connection {{ $value | humanize }} times in ten minutes",
            description="Each time its unfinished messages are given out again, here or elsewhere.",
            why="A rolling restart of three broker nodes loses a connection three times at most.",
        ),
        Alert(
            name="JmMqPublisherBlocked",
            expr="sum by (namespace, role) (jm_mq_connection_blocked) > 0",
            for_="2m",
            severity="critical",
            summary="RabbitMQ blocks {{ $value }} {{ $labels.role }} connections",
            description="The broker has a memory or disk alarm. Answers wait, and so does everything that needs one.",
            why="Publishes end at their deadline of 10 s and are tried again; a short alarm costs nothing.",
        ),
        Alert(
            name="JmMqPublishesFailing",
            expr=f"{unpublished} > 3",
            for_="0m",
            severity="critical",
            summary="{{ $value | humanize }} publishes to {{ $labels.exchange }} were {{ $labels.outcome }}",
            description="Work is done and cannot be handed on. It is kept, and done again after a restart.",
            why="One that is tried again may be a node's restart; more than three are a cause of their own. Replies, which "
            "anybody may ask for at any address, are not among them.",
        ),
        Alert(
            name="JmMqLostAcks",
            expr=f"{lost} > 10",
            for_="0m",
            severity="warning",
            summary="{{ $labels.queue }}: {{ $value | humanize }} settlements in a quarter of an hour never reached the broker",
            description="The work is done, and the broker gives the message out again.",
            why="One lost connection costs at most one settlement for each of its workers, ten by default, and mostly none.",
        ),
    ]


def _drain(worker: Worker) -> Alert:
    over = worker.drain_timeout + 15
    return Alert(
        name="JmMqDrainOverDeadline",
        expr=f'jm_mq_draining{{queue="{worker.queue}"}} == 1',
        for_=f"{over:.0f}s",
        severity="warning",
        summary=f"{{{{ $labels.instance }}}} still holds work of {worker.queue} after its drain_timeout",
        description="A handler blocks its thread. The kubelet ends the process, and the broker gives the message out again.",
        why=f"drain_timeout is {worker.drain_timeout:.0f} s there; 15 s more are a scrape. The kubelet waits {worker.grace_period:.0f} s.",
        labels={"queue": worker.queue},
    )


def _process(workers: list[Worker]) -> list[Alert]:
    # In Kubernetes the job is the worker, in docker-compose.yml there is one for all.
    jobs = "|".join(["jm-mq", *(worker.name for worker in workers)])
    return [
        Alert(
            name="JmMqProcessRestarts",
            expr="changes(process_start_time_seconds[15m]) * on (namespace, instance) group_left (queue) (jm_mq_workers >= bool 0) > 1",
            for_="0m",
            keep_firing_for="10m",
            severity="critical",
            summary="{{ $labels.instance }} ({{ $labels.queue }}) has ended by itself {{ $value }} times in a quarter of an hour",
            description="It runs out of memory, has a wrong configuration, or a message kills it.",
            why="Once is an eviction's or a node's. Twice is a loop, whose starts are soon five minutes apart: so it is told at the "
            "second one, and kept for two of those pauses. Deploying again makes new pods, not new starts of one.",
        ),
        Alert(
            name="JmMqReplicaDown",
            expr=f'up{{job=~"{jobs}"}} == 0',
            for_="3m",
            keep_firing_for="10m",
            severity="warning",
            summary="{{ $labels.instance }} ({{ $labels.job }}) does not answer",
            description="It ends before anybody sees it start, hangs, or its node is away.",
            why="A start that ends within seconds is never scraped, and its process never counted. Three minutes are more than a start "
            "takes; kept like the restarts, since between two pauses it may answer once.",
        ),
    ]
