//! The targets of `make fuzz`, in one binary: `JM_FUZZ_TARGET` names the one that runs.

#![no_main]

use std::sync::LazyLock;

type Target = fn(&[u8]);

/// Each reads what strangers send. What it promises is said at the function.
const TARGETS: [(&str, Target); 9] = [
    ("frames", jm_mq_core::fuzzing::frames),
    ("body", jm_mq_core::fuzzing::body),
    ("encoded", jm_mq_core::fuzzing::encoded),
    ("trace", |bytes| text(bytes, jm_mq_core::fuzzing::trace)),
    ("tasks", |bytes| {
        jm_tasks::fuzzing::body(bytes);
        text(bytes, jm_tasks::fuzzing::record_id);
    }),
    ("configuration", jm_service::fuzzing::configuration),
    ("address", |bytes| text(bytes, jm_engines::fuzzing::address)),
    ("resolved", jm_engines::fuzzing::resolved),
    ("recording", jm_engines::fuzzing::recording),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("JM_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("JM_FUZZ_TARGET is {name:?}; known are {:?}", TARGETS.map(|(known, _)| known))).1
});

fn text(bytes: &[u8], target: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        target(text);
    }
}

libfuzzer_sys::fuzz_target!(
    init: {
        // Recordings are decoded by this program once more.
        if jm_engines::audio::decode_if_asked().is_some() {
            std::process::exit(0);
        }
    },
    |bytes: &[u8]| (*TARGET)(bytes)
);
