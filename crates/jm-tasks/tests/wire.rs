//! What producers in other languages rely on: the committed schemas and examples are those of the types.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say so at once")]

use std::{collections::BTreeSet, fs, path::Path};

use jm_tasks::{CATALOG, MessageType};
use serde_json::{Value, json};

fn file(folder: &str, name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn golden(message_type: &MessageType) -> Value {
    file("golden", message_type.name)
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    for message_type in CATALOG {
        let committed = file("schemas", message_type.name);
        assert_eq!(committed, *message_type.schema().as_value(), "{}: run `make schemas`", message_type.name);
    }
}

#[test]
fn there_is_a_schema_and_an_example_for_each_type_and_no_other() {
    let types: BTreeSet<String> = CATALOG.iter().map(|message_type| format!("{}.json", message_type.name)).collect();
    for folder in ["schemas", "golden"] {
        let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
        let files: BTreeSet<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(files, types, "{folder}");
    }
}

#[test]
fn each_example_is_valid_by_its_schema_and_read_without_loss() {
    for message_type in CATALOG {
        let example = golden(message_type);
        jsonschema::draft202012::validate(message_type.schema().as_value(), &example)
            .unwrap_or_else(|error| panic!("{}: {error}", message_type.name));
        assert_eq!(message_type.reread(&example).unwrap(), example, "{}", message_type.name);
    }
}

#[test]
fn fields_that_nobody_knows_yet_are_ignored() {
    for message_type in CATALOG {
        let example = golden(message_type);
        let mut newer = example.clone();
        newer["a_field_of_next_year"] = json!({ "with": ["anything", 1] });
        assert!(jsonschema::draft202012::is_valid(message_type.schema().as_value(), &newer), "{}", message_type.name);
        assert_eq!(message_type.reread(&newer).unwrap(), example, "{}", message_type.name);
    }
}

#[test]
fn what_a_schema_requires_is_what_the_type_requires() {
    for message_type in CATALOG {
        let example = golden(message_type);
        for field in example.as_object().unwrap().keys() {
            let mut without = example.clone();
            without.as_object_mut().unwrap().remove(field);
            let by_schema = jsonschema::draft202012::is_valid(message_type.schema().as_value(), &without);
            let by_type = message_type.reread(&without);
            assert_eq!(by_schema, by_type.is_ok(), "{} without {field}: {by_type:?}", message_type.name);
            if let Err(error) = by_type {
                assert!(error.to_string().contains(&format!("missing field `{field}`")), "{error}");
            }
        }
    }
}

/// Where the fields of a value are, those of objects within it included.
fn fields(value: &Value, at: &str) -> Vec<(String, String)> {
    match value {
        Value::Object(object) => {
            let below = |(name, value): (&String, &Value)| {
                let mut found = fields(value, &format!("{at}/{name}"));
                found.push((at.to_owned(), name.clone()));
                found
            };
            object.iter().flat_map(below).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, item)| fields(item, &format!("{at}/{index}"))).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn an_optional_field_that_is_null_is_read_like_a_missing_one() {
    let mut optional = BTreeSet::new();
    for message_type in CATALOG {
        let example = golden(message_type);
        let mut places = fields(&example, "");
        // Optional fields that the example does without.
        let schema = message_type.schema();
        let properties = schema.as_value()["properties"].as_object().unwrap();
        places.extend(properties.keys().map(|name| (String::new(), name.clone())));
        for (at, name) in places {
            let mut without = example.clone();
            without.pointer_mut(&at).unwrap().as_object_mut().unwrap().remove(&name);
            let Ok(read) = message_type.reread(&without) else { continue };
            let mut null = example.clone();
            null.pointer_mut(&at).unwrap()[&name] = Value::Null;
            let field = format!("{} {at}/{name}", message_type.name);
            assert_eq!(message_type.reread(&null).unwrap_or_else(|error| panic!("{field}: {error}")), read, "{field}");
            optional.insert(field);
        }
    }
    for field in ["asr.transcribe /turns", "embed.text /purpose", "record.created /revision", "sd.diarized /reason"] {
        assert!(optional.contains(field), "{field} is not optional: {optional:?}");
    }
}

#[test]
fn no_turns_may_be_null() {
    let message_type = MessageType::find("sd.diarized").unwrap();
    assert_eq!(message_type.reread(&json!({ "turns": null })).unwrap()["turns"], json!([]));
    assert!(message_type.reread(&json!({})).is_err());
}

/// The places of all lists in a schema, as JSON pointers into a body, those of lists within lists among them.
fn lists<'a>(schema: &'a Value, at: &str, found: &mut Vec<(String, &'a Value)>) {
    if schema.get("items").is_some() {
        found.push((at.to_owned(), schema));
        lists(&schema["items"], &format!("{at}/0"), found);
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        lists(property, &format!("{at}/{name}"), found);
    }
}

#[test]
fn every_list_has_an_end_in_the_schema_and_in_the_type() {
    let mut seen = BTreeSet::new();
    for message_type in CATALOG {
        let schema = message_type.schema();
        let mut found = Vec::new();
        lists(schema.as_value(), "", &mut found);
        for (at, schema) in found {
            let place = format!("{} {at}", message_type.name);
            let most = schema["maxItems"].as_u64().unwrap_or_else(|| panic!("{place} has no end"));
            let mut example = golden(message_type);
            let list = example.pointer_mut(&at).and_then(Value::as_array_mut).unwrap();
            let item = list[0].clone();
            list.resize(usize::try_from(most).unwrap(), item.clone());
            message_type.reread(&example).unwrap_or_else(|error| panic!("{place}: {error}"));
            example.pointer_mut(&at).and_then(Value::as_array_mut).unwrap().push(item);
            assert!(!jsonschema::draft202012::is_valid(message_type.schema().as_value(), &example), "{place}");
            let error = message_type.reread(&example).unwrap_err().to_string();
            assert_eq!(error, format!("more than {most} items"), "{place}");
            seen.insert(place);
        }
    }
    let expected = [
        "asr.transcribe /turns",
        "asr.transcribed /segments",
        "embed.embedded /split",
        "embed.embedded /vectors",
        "embed.embedded /vectors/0",
        "embed.text /texts",
        "llm.chat /messages",
        "sd.diarized /turns",
    ];
    assert_eq!(seen, expected.map(str::to_owned).into(), "all of them are known");
}
