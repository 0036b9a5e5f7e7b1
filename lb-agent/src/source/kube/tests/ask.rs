//! One Service, asked for once.

use std::path::PathBuf;

use super::access::{Kubeconfig, access};
use super::*;
use crate::model::ObjectName;

fn web() -> ObjectName {
    ObjectName::new("default", "web")
}

async fn ask(server: &Server) -> Result<ServiceObjects, String> {
    let kubeconfig = Kubeconfig::new();
    kubeconfig.write(server, "any");
    let asked = access(&kubeconfig.0, Some("two")).ask(&web(), "node-a").await;
    asked.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

#[test]
fn a_service_is_asked_for_with_its_slices_and_those_it_is_split_over() {
    run(async {
        let server = Server::start().await;
        let mut split = service("web", 1);
        split["metadata"]["annotations"] = json!({"sluice.dev/split": "web=80,canary=20"});
        let mut whole = slice("web-1", 3);
        whole["endpoints"][0]["targetRef"] = json!({"kind": "Pod", "namespace": "default", "name": "web-x"});
        let mut empty = slice("web-2", 4);
        empty["endpoints"] = Value::Null;
        server.set("services", [split, service("canary", 2)]);
        server.set("endpointslices", [whole, empty]);
        server.set("nodes", [node("node-a", "192.0.2.1", 1)]);
        let objects = ask(&server).await.unwrap();
        assert_eq!(objects.problems, [] as [&str; 0]);
        assert!(objects.world.node("node-a").is_some());
        let slices: Vec<_> = objects.world.slices(&web()).collect();
        assert_eq!(slices.len(), 2);
        let pod = slices[0].object.endpoints[0].pod_name.as_deref();
        assert_eq!(pod, Some(&ObjectName::new("default", "web-x")));
        for (resource, wanted) in [
            (
                "nodes",
                &["/api/v1/nodes?limit=500&fieldSelector=metadata.name%3Dnode-a"][..],
            ),
            (
                "services",
                &[
                    "/api/v1/namespaces/default/services?limit=500&fieldSelector=metadata.name%3Dweb",
                    "/api/v1/namespaces/default/services?limit=500&fieldSelector=metadata.name%3Dcanary",
                ],
            ),
        ] {
            assert_eq!(server.asked(resource)[..wanted.len()], *wanted);
        }
    });
}

#[test]
fn what_cannot_be_used_is_told() {
    run(async {
        let server = Server::start().await;
        let mut broken = slice("web-1", 3);
        broken["endpoints"][0]["addresses"] = json!("10.244.0.1");
        server.set("services", [service("web", 1)]);
        server.set("endpointslices", [broken]);
        let objects = ask(&server).await.unwrap();
        assert_eq!(
            objects.problems,
            [
                "EndpointSlice default/web-1: endpoints[0].addresses must be a list, not string \"10.244.0.1\"",
                "there is no Node node-a: is --node-name right? Which endpoints are on this node, or in its zone, is not \
                 known",
            ]
        );
    });
}

#[test]
fn why_nothing_is_known_is_told() {
    run(async {
        let server = Server::start().await;
        let text = ask(&server).await.unwrap_err();
        assert!(text.contains("has no Service default/web"), "{text}");
        server.reply(Ask::List, "endpointslices", Reply::Status(403));
        let text = ask(&server).await.unwrap_err();
        assert!(
            text.contains("does not let us list, watch endpointslices (403)"),
            "{text}"
        );
        let nobody = access(&PathBuf::from("/nonexistent"), None)
            .ask(&web(), "node-a")
            .await;
        let text = nobody.unwrap_err().to_string();
        assert_eq!(text, "kubeconfig /nonexistent cannot be used");
    });
}
