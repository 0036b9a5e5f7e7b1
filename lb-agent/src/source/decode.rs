//! A value to a typed object. What does not fit is told by its path.

use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::Value;

/// How many unknown fields are named.
const NAMED: usize = 3;

/// The object, and a notice about fields that it does not have.
pub(super) fn decode<T: DeserializeOwned>(value: &Value) -> Result<(T, Option<String>), String> {
    let mut unknown = Vec::new();
    match serde_ignored::deserialize(value, |path| unknown.push(words(&path))) {
        Ok(object) => Ok((object, notice(&unknown))),
        // Paths are dear: only for an error.
        Err(_) => match serde_path_to_error::deserialize::<_, T>(value) {
            Ok(object) => Ok((object, None)),
            Err(error) => Err(sentence(&error.path().to_string(), &error.inner().to_string())),
        },
    }
}

fn words(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", words(parent)),
        Path::Map {
            parent: Path::Root,
            key,
        } => key.clone(),
        Path::Map { parent, key } => format!("{}.{key}", words(parent)),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            words(parent)
        }
    }
}

fn notice(unknown: &[String]) -> Option<String> {
    let (named, more) = unknown.split_at(unknown.len().min(NAMED));
    let more = match more.len() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    match named {
        [] => None,
        [one] => Some(format!("field {one} is unknown and has no effect")),
        _ => Some(format!(
            "fields {}{more} are unknown and have no effect",
            named.join(", ")
        )),
    }
}

/// Serde's words in those of people who write manifests.
fn sentence(path: &str, error: &str) -> String {
    let field = if path == "." { "it" } else { path };
    let parts = |prefix| error.strip_prefix(prefix)?.rsplit_once(", expected ");
    if let Some((found, expected)) = parts("invalid type: ") {
        let expected = match expected {
            "i32" | "i64" | "u32" | "u64" => "a number",
            "a string" => "text",
            "a boolean" => "true or false",
            "a sequence" => "a list",
            // The name of a type.
            other if other.starts_with(|letter: char| letter.is_uppercase()) => "a mapping",
            other => other,
        };
        let hint = match found.split(' ').next() {
            Some("boolean" | "integer" | "floating") if expected == "text" => "; quote it",
            _ => "",
        };
        let found = match found {
            "sequence" => "a list",
            "map" => "a mapping",
            "null" => "empty",
            other => other,
        };
        format!("{field} must be {expected}, not {found}{hint}")
    } else if let Some((found, "i32" | "i64" | "u32" | "u64")) = parts("invalid value: ") {
        format!("{field}: {found} is out of range")
    } else {
        format!("{field}: {error}")
    }
}
