//! UIDs.

use std::sync::Arc;

use uuid::Uuid;

/// What tells an object from an earlier one of the same name. Kubernetes gives UUIDs, but promises no more than that they
/// are text; as numbers they take a third of the room, and there is one for each endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uid {
    /// A UUID in its usual spelling (RFC 9562, section 4).
    Uuid(Uuid),
    /// Anything else.
    Text(Arc<str>),
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        let mut usual = Uuid::encode_buffer();
        match Uuid::try_parse(text) {
            Ok(uuid) if uuid.hyphenated().encode_lower(&mut usual) == text => Self::Uuid(uuid),
            _ => Self::Text(text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_equal_as_their_texts_are() {
        let texts = [
            "5c9a1e62-3f0b-4d57-8a6e-0123456789ab",
            "5c9a1e62-3f0b-4d57-8a6e-0123456789ac",
            "5C9A1E62-3F0B-4D57-8A6E-0123456789AB",
            "5c9a1e623f0b4d578a6e0123456789ab",
            "{5c9a1e62-3f0b-4d57-8a6e-0123456789ab}",
            "web-0",
            "",
        ];
        for (place, text) in texts.iter().enumerate() {
            for (other_place, other) in texts.iter().enumerate() {
                assert_eq!(
                    Uid::from(*text) == Uid::from(*other),
                    place == other_place,
                    "{text} {other}"
                );
            }
        }
        let uuids = texts.map(|text| matches!(Uid::from(text), Uid::Uuid(_)));
        assert_eq!(uuids, [true, true, false, false, false, false, false]);
    }
}
