//! Workers that do one thing wrong, on a real broker: the checker finds each of them, and nothing against one that does
//! all of it right.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use std::{path::Path, sync::Arc, time::Duration};

use jm_chaos::{
    campaign::{self, Ground, Options},
    checker::{Checker, Invariant, Verdict},
    child::Deviation,
    history::FaultKind,
    plan::{Fault, Plan, Setting},
    secrecy::Secrecy,
};

/// Of the cast: the worker and the publisher of `chaos.gone`, whose messages can all be done, and a worker of the answers.
const WORKER: u8 = 5;
const CAST: [u8; 3] = [WORKER, 6, 13];

async fn check(ground: &Ground, deviation: Deviation) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    // Stopped once in the middle of the work.
    let stop = Fault { number: 0, at_ms: 1_500, lasts_ms: 0, kind: FaultKind::WorkerDrain, slot: WORKER, size: 0 };
    let plan = Plan { seed: 1, seconds: 3, setting: Setting::of(1), faults: vec![stop] };
    let options = Options {
        cast: CAST.to_vec(),
        deviation: Some((WORKER, deviation)),
        empty_limit: Duration::from_secs(15),
        // The publisher's share of it is 110 a second: somewhat more than the worker can do.
        rate: 2_000,
        quiet: true,
        ..Options::new(env!("CARGO_BIN_EXE_jm-chaos").into())
    };
    let ground = Arc::new(ground.another().await.unwrap());
    let search = campaign::run_on(ground, &options, &plan, folder.path()).await.unwrap();
    let mut verdict = verdict(folder.path());
    verdict.secrecy = Some(Secrecy::look(search, folder.path(), &verdict, &plan, None).unwrap());
    verdict
}

fn verdict(folder: &Path) -> Verdict {
    Checker::check(1, folder).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_bug_is_found_and_nothing_against_a_worker_without_one() {
    let ground = Ground::prepare(Setting::of(1)).await.unwrap();
    let none = check(&ground, Deviation::None).await;
    assert!(none.totals.processed > 200, "{:?}", none.totals);
    for invariant in Invariant::ALL {
        assert_eq!(none.violations(invariant), 0, "{invariant:?}: {:?}", none.invariants);
    }
    assert!(none.held(), "{:?}", none.secrecy);
    for (deviation, invariant) in [
        (Deviation::AckFirst, Invariant::AckLast),
        (Deviation::NackDropped, Invariant::Drained),
        (Deviation::AnswerUnconfirmed, Invariant::AckLast),
        (Deviation::SettledElsewhere, Invariant::OneSettlement),
        (Deviation::BufferForgotten, Invariant::Drained),
    ] {
        let found = check(&ground, deviation).await;
        assert!(found.violations(invariant) > 0, "{deviation:?}: {:?}", found.invariants);
    }
    let told = check(&ground, Deviation::PasswordTold).await;
    let examples = &told.secrecy.as_ref().unwrap().examples;
    let of_worker = |example: &String| {
        example.starts_with("the broker's password is in ") && example.contains(&format!("/slot-{WORKER}.log, line "))
    };
    assert!(!told.held() && examples.iter().any(of_worker), "{:?}", told.secrecy);
}
