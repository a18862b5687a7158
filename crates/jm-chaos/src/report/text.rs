//! The report for people.
//!
//! Writing to a `String` cannot fail, so no result of it is looked at.

use std::fmt::Write as _;

use crate::{checker::Verdict, plan::Plan, secrecy::Secrecy};

/// The report as text.
pub fn text(verdict: &Verdict, plan: &Plan) -> String {
    let mut out = String::new();
    let totals = &verdict.totals;
    let _ = writeln!(
        out,
        "campaign of seed {}: {}, {} s, {} faults\n",
        verdict.seed, plan.setting, plan.seconds, totals.faults
    );
    let counts: [(&str, u64); 16] = [
        ("messages published", totals.messages),
        ("  of them confirmed", totals.confirmed_messages),
        ("answers confirmed", totals.confirmed_answers),
        ("confirms in all", totals.confirms),
        ("deliveries", totals.deliveries),
        ("processed", totals.processed),
        ("dead-lettered", totals.dead_lettered),
        ("  of them as poison", totals.poison),
        ("recovered", totals.recovered),
        ("duplicates explained", totals.duplicates_explained),
        ("  of dead letters", totals.dead_duplicates),
        ("duplicates unexplained", totals.duplicates_unexplained),
        ("lost", totals.lost),
        ("unexpected", totals.unexpected),
        ("unsettled", totals.unsettled),
        ("faults", totals.faults),
    ];
    for (label, count) in counts {
        let _ = writeln!(out, "  {label:<24} {count:>10}");
    }
    let _ = writeln!(
        out,
        "  {:<24} {:>10.0} {:>8.0} {:>8.0}   p50, p99, max in ms",
        "recovery", totals.recovery_p50_ms, totals.recovery_p99_ms, totals.recovery_max_ms
    );
    faults(&mut out, verdict);
    invariants(&mut out, verdict);
    secrecy(&mut out, verdict.secrecy.as_ref());
    out
}

fn faults(out: &mut String, verdict: &Verdict) {
    let _ = writeln!(
        out,
        "\n  {:<24} {:>6} {:>6} {:>9} {:>9} {:>8} {:>8} {:>8}",
        "fault", "count", "void", "measured", "superseded", "p50 ms", "p99 ms", "max ms"
    );
    for (kind, recovery) in &verdict.faults {
        let _ = writeln!(
            out,
            "  {:<24} {:>6} {:>6} {:>9} {:>9}  {:>8.0} {:>8.0} {:>8.0}",
            kind.label(),
            recovery.faults,
            recovery.void,
            recovery.measured,
            recovery.superseded,
            recovery.p50_ms,
            recovery.p99_ms,
            recovery.max_ms
        );
    }
    let _ = writeln!(out, "\n  messages that are faults in themselves, not among the count above");
    for (label, count) in &verdict.handler_faults {
        let _ = writeln!(out, "  {label:<32} {count:>8}");
    }
}

fn invariants(out: &mut String, verdict: &Verdict) {
    let _ = writeln!(out);
    for invariant in &verdict.invariants {
        let state = if invariant.violations == 0 { "held  " } else { "BROKEN" };
        let _ = write!(out, "  {state} {:>2}. {}", invariant.number, invariant.label);
        let _ = match invariant.violations {
            0 => writeln!(out),
            count => writeln!(out, ": {count}"),
        };
        for example in &invariant.examples {
            let _ = writeln!(out, "            {}", example.text);
        }
    }
}

fn secrecy(out: &mut String, secrecy: Option<&Secrecy>) {
    let label = "no secret of the run is in anything that came out";
    let Some(Secrecy { bytes, found, examples }) = secrecy else {
        let _ = writeln!(out, "  not searched: whether {label}; the secrets went with the run");
        return;
    };
    let state = if *found == 0 { "held  " } else { "BROKEN" };
    let _ = match found {
        0 => writeln!(out, "  {state}     {label} ({bytes} bytes)"),
        found => writeln!(out, "  {state}     {label}: {found}"),
    };
    for example in examples {
        let _ = writeln!(out, "            {example}");
    }
}
