//! Writes `schemas/` anew from the types: `make schemas`. A test fails as long as the two differ.

use std::{fs, path::Path};

use jm_tasks::CATALOG;

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    fs::create_dir_all(&folder)?;
    for message_type in CATALOG {
        let text = serde_json::to_string_pretty(&message_type.schema())? + "\n";
        fs::write(folder.join(format!("{}.json", message_type.name)), text)?;
    }
    Ok(())
}
