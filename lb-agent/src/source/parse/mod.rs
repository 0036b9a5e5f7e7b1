//! Kubernetes objects to our words: the one place where fields, labels and annotations are interpreted.

mod annotation;
mod field;
mod namespace;
mod node;
mod service;
mod service_cidr;
mod slice;

use std::net::IpAddr;

use thiserror::Error;

use crate::model::{IpFamily, Object};

pub use namespace::namespace;
pub use node::node;
pub use service::service;
pub use service_cidr::service_cidr;
pub use slice::endpoint_slice;

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The object; `None` when it is rightly left alone.
    pub object: Option<Object>,
    /// What of it is left out, for people.
    pub notices: Vec<String>,
    /// What it lacks to be of use; its last good state is better.
    pub lacking: Option<&'static str>,
}

/// A field that cannot be used, and with it the object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// It must be there.
    #[error("{field} is missing")]
    Missing {
        /// The path of the field.
        field: String,
    },
    /// A port out of range.
    #[error("{field}: {value} is no port; use 1 to 65535")]
    Port {
        /// The path of the field.
        field: String,
        /// What it holds.
        value: i32,
    },
    /// Not an address.
    #[error("{field}: \"{value}\" is no IP address")]
    Address {
        /// The path of the field.
        field: String,
        /// What it holds.
        value: String,
    },
    /// Not a prefix.
    #[error("{field}: \"{value}\" is no prefix such as 10.244.0.0/16")]
    Prefix {
        /// The path of the field.
        field: String,
        /// What it holds.
        value: String,
    },
    /// An address that can be nobody's, or is not meant for this.
    #[error("{field}: {value} is {what}, which cannot be used here")]
    Unfit {
        /// The path of the field.
        field: String,
        /// The address.
        value: IpAddr,
        /// What kind of address it is.
        what: &'static str,
    },
    /// An address of the other family.
    #[error("{field}: {value} is no {family} address")]
    Family {
        /// The path of the field.
        field: String,
        /// What it holds.
        value: String,
        /// The family that it should be of.
        family: IpFamily,
    },
    /// The same as an earlier one.
    #[error("{field}: {value} is there twice")]
    Duplicate {
        /// The path of the field.
        field: String,
        /// What it holds.
        value: String,
    },
    /// A word that means nothing to us.
    #[error("{field}: \"{value}\" is unknown; use {known}")]
    Unknown {
        /// The path of the field.
        field: String,
        /// What it holds.
        value: String,
        /// What it may hold.
        known: &'static str,
    },
    /// No name that Kubernetes would take.
    #[error("{field}: \"{value}\" is no valid name: at most {length} letters, digits, dashes and dots")]
    Name {
        /// The path of the field.
        field: String,
        /// What it holds.
        value: String,
        /// How long it may be.
        length: usize,
    },
}

impl Parsed {
    fn left_alone() -> Self {
        Self {
            object: None,
            notices: Vec::new(),
            lacking: None,
        }
    }
}

#[cfg(test)]
mod tests;
