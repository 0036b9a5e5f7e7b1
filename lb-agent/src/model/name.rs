//! What objects are called, where they came from, and what is the matter with them.

use std::fmt;
use std::sync::Arc;

use super::Reason;

/// Namespace and name; the namespace is empty for cluster-wide objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

/// Kinds that a source yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A Service.
    Service,
    /// An EndpointSlice.
    EndpointSlice,
    /// A Node.
    Node,
    /// A Namespace.
    Namespace,
    /// A ServiceCIDR.
    ServiceCidr,
}

/// Names one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: ObjectName,
}

/// Where an object was read, for people: a file and document, for example. Nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(Option<Arc<str>>);

/// Something that a person should mend: logged once, as a warning.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The object that it is about, when it could be told.
    pub object: Option<ObjectRef>,
    /// Where it was read.
    pub origin: Origin,
    /// What kind of problem it is.
    pub reason: Reason,
    /// What is the matter, and what is done about it.
    pub text: String,
}

impl ObjectName {
    /// From its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// From `namespace/name`; `None` for other text.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        let fits = |part: &str| !part.is_empty() && !part.contains(['/', ':', '[', ']']);
        (fits(namespace) && fits(name)).then(|| Self::new(namespace, name))
    }
}

impl ObjectRef {
    /// The object of this kind and name; objects without namespace are in `default`, as for kubectl, or in none.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = match (kind, namespace) {
            (Kind::Node | Kind::Namespace | Kind::ServiceCidr, _) => "",
            (Kind::Service | Kind::EndpointSlice, "") => "default",
            (Kind::Service | Kind::EndpointSlice, namespace) => namespace,
        };
        Self {
            kind,
            name: ObjectName::new(namespace, name),
        }
    }
}

impl Origin {
    /// From the words for it.
    pub fn new(words: &str) -> Self {
        Self(Some(words.into()))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl Kind {
    /// Kubernetes' word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Origin(Some(origin)) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.text)
    }
}
