//! Diarization: who speaks when, on the telephone and in conversations that have been put together.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use jm_engines::{Call, DiarizationEngine, audio::Audio};
use jm_tasks::SpeakerTurn;

use crate::{
    conversation,
    diarization_error::{COLLAR, diarization_error},
    embedded, loaded, recording,
    report::{Bound, Report, Row, Unit},
};

/// People on the telephone speak at once, and in half words.
const CALL_RATE: Bound = Bound::AtMost(20.0);
const CONVERSATION_RATE: Bound = Bound::AtMost(15.0);
/// For half a minute.
const TIME: Bound = Bound::Below(15.0);

pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let engine = loaded(embedded().diarization())?;
    let (audio, turns) = recording::call().await?;
    let input = format!("a telephone call, {:.0} s, 2 speakers", audio.duration().as_secs_f64());
    let (figure, taken) = rate(engine.as_ref(), &audio, &turns).await?;
    report.add(Row { measure: "diarization error rate", input, figure, unit: Unit::Percent, bound: CALL_RATE });
    for conversation in conversation::all().await? {
        let seconds = conversation.audio.duration().as_secs_f64();
        let (figure, _) = rate(engine.as_ref(), &conversation.audio, &conversation.turns).await?;
        report.add(Row {
            measure: "diarization error rate",
            input: format!("{}, {seconds:.0} s", conversation.name),
            figure,
            unit: Unit::Percent,
            bound: CONVERSATION_RATE,
        });
    }
    report.add(Row {
        measure: "time of diarization",
        input: format!("a telephone call, {:.0} s", audio.duration().as_secs_f64()),
        figure: taken.as_secs_f64(),
        unit: Unit::Seconds,
        bound: TIME,
    });
    Ok(())
}

/// In percent, without a hint as to the number of speakers; and the time it took.
async fn rate(engine: &dyn DiarizationEngine, audio: &Audio, turns: &[SpeakerTurn]) -> Result<(f64, Duration)> {
    let begun = Instant::now();
    let found = engine.diarize(audio, None, &Call::default()).await.map_err(|error| anyhow!("{error}"))?;
    Ok((100.0 * diarization_error(turns, &found.turns, COLLAR).rate(), begun.elapsed()))
}
