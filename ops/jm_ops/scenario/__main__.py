"""`python -m jm_ops.scenario --workers FOLDER --rabbitmq ROOT`: plays the story, and tells what is not true.

FOLDER has the five workers' binaries; ROOT is a Debian root with RabbitMQ 4.3, as `scripts/install-rabbitmq 4.3` makes it.
It takes about five minutes. `--pictures FOLDER` also draws every dashboard.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jm_ops.alerts import Alert, alerts
from jm_ops.scenario import findings
from jm_ops.scenario.broker import Broker
from jm_ops.scenario.engine import Engine
from jm_ops.scenario.fleet import One, fleet
from jm_ops.scenario.load import Load, recording
from jm_ops.scenario.picture import draw
from jm_ops.scenario.story import RANDOM_TYPES, Story
from jm_ops.scenario.watcher import Watcher
from jm_ops.workers import seconds, workers

# `for` of the alerts, so that they fire within the story.
SHORTER = 30


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--workers", type=Path, required=True)
    arguments.add_argument("--rabbitmq", type=Path, required=True)
    arguments.add_argument("--pictures", type=Path)
    chosen = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="jm-ops-"))
    wrong = []
    try:
        wrong = list(_run(chosen, folder))
        for finding in wrong:
            print(f"WRONG {finding}", file=sys.stderr)
    finally:
        if wrong or sys.exc_info()[0]:
            print(f"logs are kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    return 1 if wrong else 0


def _run(chosen: argparse.Namespace, folder: Path) -> Iterator[str]:
    rules = alerts(workers())
    broker, engine = Broker(chosen.rabbitmq, folder), Engine()
    everybody: dict[str, One] = {}
    watcher: Watcher | None = None
    load: Load | None = None
    try:
        broker.start()
        audio = recording(folder / "recordings")
        everybody = fleet(chosen.workers, broker, engine.url, folder, folder / "recordings")
        watcher = Watcher(list(everybody.values()), broker, _rules(rules), folder)
        for one in everybody.values():
            one.start()
        for one in everybody.values():
            one.wait_ready()
        watcher.start()
        for name, one in everybody.items():
            yield from findings.of_page(name, one.metrics())
        load = Load(broker, audio, notes_per_second=4, spoken_share=0.2)
        story = Story(broker, engine, everybody, load, folder / "records.db", audio)
        story.play()
        yield from findings.of_alerts(watcher, rules, story.phases)
        yield from findings.of_dashboards(watcher, story.phases)
        yield from findings.of_names(watcher, rules)
        yield from findings.of_cardinality(story.series, RANDOM_TYPES)
        yield from (f"{name} ended with {code} after SIGTERM" for name, code in story.codes.items() if code)
        _tell(story, rules)
        if chosen.pictures:
            draw(watcher, story.phases, chosen.pictures)
    finally:
        for part in (load, watcher):
            if part:
                part.stop()
        for one in everybody.values():
            one.end(5)
        engine.stop()
        broker.stop()


def _rules(rules: list[Alert]) -> dict:
    shorter = [rule.rule() | {"for": f"{seconds(rule.for_) / SHORTER:.0f}s"} for rule in rules]
    return {"groups": [{"name": "jm-mq", "rules": shorter}]}


def _tell(story: Story, rules: list[Alert]) -> None:
    count = sum(1 for _ in findings.targets())
    names = len({rule.name for rule in rules})
    print(f"{count} queries of dashboards, {len(rules)} rules of {names} alerts, {len(story.phases)} phases")
    print(
        f"series of llm-worker before {RANDOM_TYPES} unknown types: {story.series['before']}, after: {story.series['after']}"
    )


if __name__ == "__main__":
    sys.exit(main())
