"""Pieces of PromQL that dashboards and alerts share, so that a panel and its alert never disagree.

`where` is a label selector without braces. Gauges of a queue are told by every replica, so the largest counts, and only
from replicas that consume: one that is cut off keeps the last value it heard.
"""

from __future__ import annotations

QUEUE = "namespace, queue"
REPLICA = "namespace, instance, queue"


def select(metric: str, *labels: str) -> str:
    chosen = ", ".join(label for label in labels if label)
    return f"{metric}{{{chosen}}}" if chosen else metric


def backlog(where: str = "") -> str:
    """Messages that wait, as the broker counts them."""
    ready = select("jm_mq_queue_messages_ready", where)
    return f"max by ({QUEUE}) ({ready} and on ({REPLICA}) ({select('jm_mq_consumer_ready', where)} == 1))"


def waiting(queues: str) -> str:
    """Messages that wait, as the broker tells it of itself, also where no replica runs; or else as the replicas do."""
    told = select("rabbitmq_detailed_queue_messages_ready", f'queue=~"{queues}"')
    return f"(max by ({QUEUE}) ({told}) or {backlog()})"


def dead(window: str) -> str:
    """Messages in dead-letter queues, in hand or not. A node that restarts tells nothing for a moment."""
    lying = select("rabbitmq_detailed_queue_messages", 'queue=~".+[.]dead"')
    return f"max by ({QUEUE}) (max_over_time({lying}[{window}]))"


def slope(window: str, where: str = "") -> str:
    """How much the backlog grows, in messages a second."""
    return f"deriv(({backlog(where)})[{window}:30s])"


def finished(window: str, where: str = "") -> str:
    """Messages a second that leave the queue for good."""
    done = select("jm_mq_deliveries_total", where, 'outcome=~"ack|dead_letter"')
    return f"sum by ({QUEUE}) (rate({done}[{window}]))"


def wait(window: str, where: str = "") -> str:
    """Seconds until the last message that waits is finished, at the present rate; infinite if nothing is."""
    return f"({backlog(where)} > 0) / {finished(window, where)}"


def oldest(where: str = "") -> str:
    """Age of the oldest unsettled message, as a share of what its replica was told of consumer_timeout."""
    return f"{select('jm_mq_oldest_unacked_seconds', where)} / {select('jm_mq_consumer_timeout_seconds', where)}"


def increase(metric: str, window: str, *labels: str, by: str = QUEUE) -> str:
    return f"sum by ({by}) (increase({select(metric, *labels)}[{window}]))"


def rate(metric: str, window: str, *labels: str, by: str = QUEUE) -> str:
    return f"sum by ({by}) (rate({select(metric, *labels)}[{window}]))"


def connected(where: str, window: str) -> str:
    """Replicas that have had a connection of any role within the window."""
    return f"sum by (namespace, instance) (max_over_time({select('jm_mq_connections', where)}[{window}])) > 0"


def beside(where: str = "") -> str:
    """Restricts a metric without a queue to the replicas of the chosen queues."""
    return f"and on (namespace, instance) {select('jm_mq_workers', where)}"


def ours(process_metric: str, where: str = "") -> str:
    """A metric of the process, from workers alone: its name says nothing of whose process it is."""
    return (
        f"{process_metric} * on (namespace, instance) group_left (queue) ({select('jm_mq_workers', where)} >= bool 0)"
    )
