//! What is watched: paths, selectors, and the rights that it takes.

use http::Request;

use super::trouble::Trouble;
use crate::model::Kind;

/// Objects of a page of a list.
const PAGE: u32 = 500;

/// One kind of object and which of its objects are asked for.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) kind: Kind,
    /// The API group; empty: the core group.
    pub(super) group: &'static str,
    /// The resource, as paths and rights name it.
    pub(super) resource: &'static str,
    /// The path of the list.
    path: &'static str,
    /// Selectors, encoded; kube-proxy uses the same (cmd/kube-proxy/app/server.go).
    selectors: &'static str,
    /// Whether anything is wrong without it.
    pub(super) required: bool,
}

/// Some objects of a kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which<'a> {
    /// The one of this name.
    Named(&'a str),
    /// The EndpointSlices of the Service of this name.
    OfService(&'a str),
}

/// Services, but no headless ones, and none that another proxy handles.
pub(super) const SERVICES: Watched = Watched {
    kind: Kind::Service,
    group: "",
    resource: "services",
    path: "/api/v1/services",
    // !service.kubernetes.io/service-proxy-name; spec.clusterIP!=None
    selectors: "&labelSelector=%21service.kubernetes.io%2Fservice-proxy-name&fieldSelector=spec.clusterIP%21%3DNone",
    required: true,
};

/// Their EndpointSlices, whoever manages them.
pub(super) const SLICES: Watched = Watched {
    kind: Kind::EndpointSlice,
    group: "discovery.k8s.io",
    resource: "endpointslices",
    path: "/apis/discovery.k8s.io/v1/endpointslices",
    // !service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless
    selectors: "&labelSelector=%21service.kubernetes.io%2Fservice-proxy-name%2C%21service.kubernetes.io%2Fheadless",
    required: true,
};

/// Every Node: their addresses may send wrapped packets.
pub(super) const NODES: Watched = Watched {
    kind: Kind::Node,
    group: "",
    resource: "nodes",
    path: "/api/v1/nodes",
    selectors: "",
    required: true,
};

/// Every ServiceCIDR. The kind is there from Kubernetes 1.33 on.
pub(super) const SERVICE_CIDRS: Watched = Watched {
    kind: Kind::ServiceCidr,
    group: "networking.k8s.io",
    resource: "servicecidrs",
    path: "/apis/networking.k8s.io/v1/servicecidrs",
    selectors: "",
    required: false,
};

/// The Namespace whose UID names the cluster; it is asked for once, since it never changes.
pub(super) const CLUSTER: Watched = Watched {
    kind: Kind::Namespace,
    group: "",
    resource: "namespaces",
    path: "/api/v1/namespaces/kube-system",
    selectors: "",
    required: false,
};

impl Watched {
    /// A page of the list: the first one, or the one that the last page names.
    pub(super) fn page(&self, token: Option<&str>) -> Result<Request<Vec<u8>>, Trouble> {
        let more = token.map(|token| format!("&continue={}", encoded(token)));
        let more = more.unwrap_or_default();
        self.get(&format!("?limit={PAGE}{}{more}", self.selectors))
    }

    /// A page of the list of those in a namespace that are meant. Of what is in no namespace, that is empty.
    pub(super) fn page_of(
        &self,
        namespace: &str,
        which: Which<'_>,
        token: Option<&str>,
    ) -> Result<Request<Vec<u8>>, Trouble> {
        let path = match (namespace, self.path.strip_suffix(self.resource)) {
            ("", _) | (_, None) => self.path.to_owned(),
            (_, Some(group)) => format!("{group}namespaces/{}/{}", encoded(namespace), self.resource),
        };
        let selector = match which {
            Which::Named(name) => format!("fieldSelector=metadata.name%3D{}", encoded(name)),
            Which::OfService(name) => {
                format!("labelSelector=kubernetes.io%2Fservice-name%3D{}", encoded(name))
            }
        };
        let more = token.map(|token| format!("&continue={}", encoded(token)));
        let more = more.unwrap_or_default();
        self.request(&format!("{path}?limit={PAGE}&{selector}{more}"))
    }

    /// A watch from `version` on, or one that begins with every object (KEP-3157).
    pub(super) fn watch(&self, version: Option<&str>, seconds: u64) -> Result<Request<Vec<u8>>, Trouble> {
        let from = match version {
            Some(version) => format!("resourceVersion={}", encoded(version)),
            // No version: the newest state, not one of a cache that lags behind.
            None => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
        };
        let selectors = self.selectors;
        self.get(&format!(
            "?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&{from}{selectors}"
        ))
    }

    /// The one object.
    pub(super) fn object(&self) -> Result<Request<Vec<u8>>, Trouble> {
        self.get("")
    }

    /// What is answered, or asked, cannot be read.
    pub(super) fn garbled(&self, why: &impl ToString) -> Trouble {
        Trouble::Garbled {
            resource: self.resource,
            why: why.to_string(),
        }
    }

    fn get(&self, query: &str) -> Result<Request<Vec<u8>>, Trouble> {
        self.request(&format!("{}{query}", self.path))
    }

    fn request(&self, uri: &str) -> Result<Request<Vec<u8>>, Trouble> {
        let request = Request::get(uri).body(Vec::new());
        request.map_err(|error| self.garbled(&error))
    }
}

/// A value of a query (RFC 3986): tokens are the server's, and may hold anything.
fn encoded(value: &str) -> String {
    let mut found = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            found.push(byte.into());
        } else {
            found.extend(["%", &format!("{byte:02X}")]);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_kube_proxys_selectors() {
        let uri = |request: Result<Request<Vec<u8>>, Trouble>| request.unwrap().uri().to_string();
        let labels = "labelSelector=%21service.kubernetes.io%2Fservice-proxy-name";
        assert_eq!(
            uri(SERVICES.page(Some("a+b=/"))),
            format!(
                "/api/v1/services?limit=500&{labels}&fieldSelector=spec.clusterIP%21%3DNone&continue=a%2Bb%3D%2F"
            )
        );
        assert_eq!(
            uri(SLICES.watch(Some("7"), 300)),
            format!(
                "/apis/discovery.k8s.io/v1/endpointslices?watch=true&allowWatchBookmarks=true&timeoutSeconds=300&\
                 resourceVersion=7&{labels}%2C%21service.kubernetes.io%2Fheadless"
            )
        );
        assert_eq!(
            uri(NODES.watch(None, 300)),
            "/api/v1/nodes?watch=true&allowWatchBookmarks=true&timeoutSeconds=300&sendInitialEvents=true&\
             resourceVersionMatch=NotOlderThan"
        );
        assert_eq!(uri(CLUSTER.object()), "/api/v1/namespaces/kube-system");
    }

    #[test]
    fn some_are_asked_for_by_their_namespace_and_name_or_service() {
        let uri = |request: Result<Request<Vec<u8>>, Trouble>| request.unwrap().uri().to_string();
        assert_eq!(
            uri(SERVICES.page_of("shop", Which::Named("web"), None)),
            "/api/v1/namespaces/shop/services?limit=500&fieldSelector=metadata.name%3Dweb"
        );
        assert_eq!(
            uri(SLICES.page_of("shop", Which::OfService("web"), Some("x/"))),
            "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?limit=500&\
             labelSelector=kubernetes.io%2Fservice-name%3Dweb&continue=x%2F"
        );
        assert_eq!(
            uri(NODES.page_of("", Which::Named("node-a"), None)),
            "/api/v1/nodes?limit=500&fieldSelector=metadata.name%3Dnode-a"
        );
    }
}
