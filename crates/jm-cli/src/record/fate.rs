//! What has become of a record's tasks whose results have not arrived: whether they are dead letters.

use std::time::Duration;

use jm_mq_core::Payload;
use jm_report::{Fate, Fates};
use jm_tasks::{Diarize, Embed, Stage, Summarize, Title, Transcribe};
use record_event_worker::{RecordView, StartedTask};
use tokio::time::timeout;

use crate::{
    configuration::ConfiguredWorker,
    dead::{Glance, Purpose},
    failure::Failure,
    operator::Operator,
};

/// Dead letters of a queue that are looked through for one task.
const MAX_LOOKED_AT: u32 = 10_000;
/// What looking for one task takes at most.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

pub(super) async fn of_tasks(view: &RecordView, operator: &Operator<'_>) -> Fates {
    let mut fates = Fates::new();
    for (&stage, task) in &view.tasks {
        let workers = operator.configuration.workers.iter();
        let Some(worker) = workers.into_iter().find(|worker| worker.worker.types.contains(&task_type(stage))) else {
            fates.insert(stage, Fate::Unknown { why: "its worker is left out by --worker".to_owned() });
            continue;
        };
        let fate = match timeout(LOOK_LIMIT, of_task(worker, task, operator)).await {
            Ok(Ok(fate)) => fate,
            Ok(Err(failure)) => Fate::Unknown { why: failure.to_string() },
            Err(_) => Fate::Unknown { why: format!("not found within {} s", LOOK_LIMIT.as_secs()) },
        };
        fates.insert(stage, fate);
    }
    fates
}

fn task_type(stage: Stage) -> &'static str {
    match stage {
        Stage::Diarization => Diarize::TYPE,
        Stage::Transcription => Transcribe::TYPE,
        Stage::Embedding => Embed::TYPE,
        Stage::Summary => Summarize::TYPE,
        Stage::Title => Title::TYPE,
    }
}

async fn of_task(worker: &ConfiguredWorker, task: &StartedTask, operator: &Operator<'_>) -> Result<Fate, Failure> {
    let (queue, id) = (worker.dead_letter_queue(), task.task_id.to_string());
    let mut glance = Glance::open(operator, &queue, Purpose::Look { although_counted: false }).await?;
    let mut fate = Fate::NotDead;
    while let Some(taken) = glance.next().await? {
        let letter = &taken.letter;
        if letter.message_id() == Some(&id) {
            fate = Fate::Dead {
                queue: queue.clone(),
                error_kind: letter.error_kind(),
                error: letter.error_text(),
                failed_at: letter.failed_at().map(|at| at.to_string()),
            };
        } else if glance.seen() == MAX_LOOKED_AT && glance.ready() > MAX_LOOKED_AT {
            fate = Fate::Unknown { why: format!("not among the first {MAX_LOOKED_AT} dead letters of {queue}") };
        }
        glance.hold(taken).await?;
        if fate != Fate::NotDead {
            break;
        }
    }
    glance.close().await?;
    Ok(fate)
}
