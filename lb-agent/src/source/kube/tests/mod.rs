//! The source against a server that does as it is told.

mod access;
mod ask;
mod objects;
mod random;
mod server;
mod trouble;

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Config;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::model::{Kind, Object, ObjectRef};
use server::{Ask, Reply, Server, initial_events_end, line, status};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the source has told.
struct Told {
    objects: BTreeMap<ObjectRef, Object>,
    /// Every event in its order, in words.
    log: Vec<String>,
    synced: bool,
    events: mpsc::Receiver<Vec<SourceEvent>>,
}

impl Told {
    fn by(events: mpsc::Receiver<Vec<SourceEvent>>) -> Self {
        Self {
            objects: BTreeMap::new(),
            log: Vec::new(),
            synced: false,
            events,
        }
    }

    /// Waits until `is` is true of it.
    async fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        while !is(self) {
            let batch = timeout(PATIENCE, self.events.recv()).await;
            let Ok(Some(batch)) = batch else {
                panic!("not within {PATIENCE:?}: {what}; told {:#?}", self.log)
            };
            for event in batch {
                self.take(event);
            }
        }
    }

    async fn until_synced(&mut self) {
        self.until("synced", |told| told.synced).await;
    }

    fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Apply { object, .. } => {
                self.log.push(format!("apply {}", object.reference()));
                self.objects.insert(object.reference(), object);
            }
            SourceEvent::Delete(object) => {
                self.log.push(format!("delete {object}"));
                self.objects.remove(&object);
            }
            SourceEvent::Synced => {
                assert!(!self.synced, "synced twice");
                self.log.push("synced".to_owned());
                self.synced = true;
            }
            SourceEvent::Problem(problem) => self.log.push(format!("problem {problem}")),
        }
    }

    fn names(&self, kind: Kind) -> Vec<String> {
        let objects = self.objects.keys().filter(|object| object.kind == kind);
        objects.map(|object| object.name.name.to_string()).collect()
    }

    fn has(&self, entry: &str) -> bool {
        self.count(entry) > 0
    }

    fn count(&self, entry: &str) -> usize {
        self.log.iter().filter(|known| known.contains(entry)).count()
    }
}

/// Runs a test that follows a server.
fn with_server<F: Future<Output = ()>>(test: impl FnOnce(Server, Told) -> F) {
    run(async {
        let server = Server::start().await;
        server.set("nodes", [node("node-a", "192.0.2.1", 1)]);
        let told = follow_at(server.address);
        test(server, told).await;
    });
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Follows the server at an address, where there need not be one yet.
fn follow_at(address: std::net::SocketAddr) -> Told {
    let config = Config::new(format!("http://{address}").parse().unwrap());
    let (sender, events) = mpsc::channel(8);
    let client = super::access::client(config).unwrap();
    tokio::task::spawn_local(follow(client, ApiAccess::default(), "node-a".to_owned(), sender));
    Told::by(events)
}

fn service(name: &str, version: u64) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string(),
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    })
}

fn slice(name: &str, version: u64) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "resourceVersion": version.to_string(),
            "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [{"addresses": ["10.244.0.1"], "nodeName": "node-a"}],
    })
}

fn node(name: &str, ip: &str, version: u64) -> Value {
    json!({
        "metadata": {"name": name, "resourceVersion": version.to_string()},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
    })
}

#[test]
fn everything_is_told_once_and_then_what_changes() {
    with_server(|server, mut told| async move {
        server.set("services", [service("web", 1), service("dns", 2)]);
        server.set("endpointslices", [slice("web-1", 3)]);
        told.until_synced().await;
        assert_eq!(told.names(Kind::Service), ["dns", "web"]);
        assert_eq!(told.names(Kind::EndpointSlice), ["web-1"]);
        assert_eq!(told.names(Kind::Node), ["node-a"]);
        assert_eq!(told.names(Kind::Namespace), ["kube-system"]);
        assert_eq!(told.log.last().unwrap(), "synced");

        server.tell("services", "MODIFIED", &service("web", 21));
        server.tell("services", "ADDED", &service("api", 22));
        server.tell("services", "DELETED", &service("dns", 23));
        told.until("a deletion", |told| told.has("delete Service default/dns"))
            .await;
        assert_eq!(told.names(Kind::Service), ["api", "web"]);
        assert_eq!(told.count("apply Service default/web"), 2);
        let asked = server.asked("services");
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(asked[0].contains("sendInitialEvents=true"), "{asked:?}");
    });
}

#[test]
fn an_old_server_is_asked_for_pages() {
    with_server(|server, mut told| async move {
        server.version(1, 26);
        server.pages_of(2);
        server.set(
            "services",
            (1..=5).map(|n| service(&format!("s{n}"), n)).collect::<Vec<_>>(),
        );
        told.until_synced().await;
        assert_eq!(told.names(Kind::Service), ["s1", "s2", "s3", "s4", "s5"]);
        let asked = server.asked("services");
        assert!(
            asked[..3].iter().all(|uri| uri.contains("limit=500")),
            "{asked:?}"
        );
        assert!(asked[2].contains("continue=4"), "{asked:?}");
        // From the version of the list on.
        while server.asked("services").len() < 4 {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(
            server.asked("services")[3].contains("resourceVersion=30&"),
            "{:?}",
            server.asked("services")
        );
    });
}

#[test]
fn a_server_that_refuses_streaming_lists_is_asked_for_pages() {
    with_server(|server, mut told| async move {
        server.set("services", [service("web", 1)]);
        for resource in ["services", "endpointslices", "nodes", "servicecidrs"] {
            server.reply(Ask::Fill, resource, Reply::Status(422));
        }
        told.until_synced().await;
        assert_eq!(told.names(Kind::Service), ["web"]);
        assert!(
            server.asked("services")[1].contains("limit=500"),
            "{:?}",
            server.asked("services")
        );
    });
}

#[test]
fn a_heartbeat_of_a_node_is_no_event() {
    with_server(|server, mut told| async move {
        told.until_synced().await;
        for version in 30..40 {
            let mut beat = node("node-a", "192.0.2.1", version);
            beat["status"]["conditions"] =
                json!([{"type": "Ready", "lastHeartbeatTime": version.to_string()}]);
            server.tell("nodes", "MODIFIED", &beat);
        }
        server.tell("nodes", "MODIFIED", &node("node-a", "192.0.2.2", 41));
        told.until("another address", |told| told.count("apply Node node-a") == 2)
            .await;
        assert_eq!(told.count("Node"), 2);
    });
}

#[test]
fn a_node_that_is_not_there_is_told_of() {
    with_server(|server, mut told| async move {
        server.set("nodes", [node("node-b", "192.0.2.2", 1)]);
        told.until_synced().await;
        assert_eq!(told.count("problem Node node-a: there is no such Node"), 1);
    });
}
