//! Objects that are broken, empty or large.

use super::*;
use crate::source::kube::item::{Content, item};
use crate::source::parse;

/// What is read of an object.
fn content(kind: Kind, object: &Value) -> Content {
    item(kind, &object.to_string()).content
}

#[track_caller]
fn check_broken(kind: Kind, object: &Value, expected: &str) {
    match content(kind, object) {
        Content::Broken(why) => assert!(why.contains(expected), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_broken_object_hurts_no_other_and_its_last_good_state_stays() {
    with_server(|server, mut told| async move {
        let broken = json!({"metadata": {"name": "bad", "namespace": "default", "resourceVersion": "3"}, "spec": {"ports": 7}});
        let nameless = json!({"metadata": {"name": 7}, "spec": null});
        server.set(
            "services",
            [
                service("web", 1),
                broken.clone(),
                nameless,
                json!([]),
                service("dns", 2),
            ],
        );
        told.until_synced().await;
        assert_eq!(told.names(Kind::Service), ["dns", "web"]);
        let left_out =
            "problem Service default/bad: spec.ports must be a list, not integer `7`; it is left out until";
        assert_eq!(told.count(left_out), 1, "{:#?}", told.log);
        assert_eq!(
            told.count("problem a Service without a name that can be read is left out"),
            2,
            "{:#?}",
            told.log
        );

        let mut worse = service("web", 60);
        worse["spec"]["ports"][0]["port"] = json!("80");
        server.tell("services", "MODIFIED", &worse);
        server.tell("services", "MODIFIED", &worse);
        let stays = "problem Service default/web: spec.ports[0].port must be a number, not string \"80\"; its last good state stays";
        told.until("a problem", |told| told.has(stays)).await;
        // A broken object has a version, too.
        server.cut("services");
        server.set("services", [worse, service("dns", 2)]);
        server.reply(Ask::Watch, "services", Reply::Status(410));
        server.reply(Ask::Fill, "services", Reply::Status(500));
        server.reply(Ask::Watch, "services", Reply::Status(410));
        told.until("everything anew", |told| {
            told.count("apply Service default/dns") == 2
        })
        .await;
        assert!(
            server.asked("services")[1].contains("resourceVersion=60&"),
            "{:?}",
            server.asked("services")
        );
        assert_eq!(told.names(Kind::Service), ["dns", "web"]);
        assert_eq!(told.count(stays), 1, "{:#?}", told.log);

        server.tell("services", "MODIFIED", &service("web", 90));
        told.until("mended", |told| told.count("apply Service default/web") == 2)
            .await;
    });
}

#[test]
fn slices_without_endpoints_are_slices() {
    for endpoints in [json!(null), json!([])] {
        let mut object = slice("web-1", 1);
        object["endpoints"] = endpoints;
        object["ports"] = json!(null);
        let Content::Object(Object::EndpointSlice(slice), notices) = content(Kind::EndpointSlice, &object)
        else {
            panic!("no slice")
        };
        assert_eq!(
            (slice.endpoints.len(), slice.ports.len(), notices.len()),
            (0, 0, 0)
        );
    }
}

#[test]
fn nulls_are_no_values() {
    let nulls = json!({
        "metadata": {"name": "web", "namespace": "default", "labels": null, "annotations": null},
        "spec": {"clusterIP": "10.96.0.1", "clusterIPs": null, "ports": null, "externalIPs": null, "type": null,
            "loadBalancerSourceRanges": null, "sessionAffinityConfig": null},
        "status": null,
    });
    assert!(matches!(content(Kind::Service, &nulls), Content::Object(..)));
    let mut object = slice("web-1", 1);
    object["endpoints"] = json!([{"addresses": 7}]);
    check_broken(
        Kind::EndpointSlice,
        &object,
        "endpoints[0].addresses must be a list",
    );
    check_broken(Kind::Service, &json!({"metadata": null}), "metadata");
    check_broken(Kind::Service, &json!({}), "metadata");
}

#[test]
fn objects_are_read_as_manifests_are() {
    let text = include_str!("../../../../../deploy/examples/demo/node.yaml");
    let mut object: Value = serde_saphyr::from_str(text).unwrap();
    object["metadata"]["managedFields"] = json!("not looked at");
    object["status"]["images"] = json!("not looked at");
    let Content::Object(Object::Node(node), _) = content(Kind::Node, &object) else {
        panic!("no Node")
    };
    assert!(!node.internal_ips.is_empty());
}

#[test]
fn a_service_that_becomes_an_alias_has_no_ports() {
    let mut object = service("web", 1);
    object["spec"] = json!({"type": "ExternalName", "externalName": "example.com", "clusterIP": ""});
    let Content::Object(Object::Service(service), notices) = content(Kind::Service, &object) else {
        panic!("no Service")
    };
    assert_eq!((service.ports.len(), notices.len()), (0, 0));
}

#[test]
fn of_endpoints_all_is_read_but_what_pods_are_called() {
    let mut object = slice("web-1", 1);
    object["endpoints"] = json!([
        {
            "addresses": ["10.244.0.1"],
            "conditions": {"ready": false, "serving": true, "terminating": true},
            "hints": {"forZones": [{"name": "zone-a"}], "forNodes": [{"name": "node-a"}]},
            "nodeName": "node-a",
            "targetRef": {"kind": "Pod", "name": "web-0", "uid": "5c9a1e62-3f0b-4d57-8a6e-0123456789ab"},
        },
        {"addresses": ["10.244.0.2"], "targetRef": {"kind": "Pod", "name": "web-1"}},
    ]);
    let manifest = serde_json::from_value(object.clone()).unwrap();
    let Some(Object::EndpointSlice(mut expected)) = parse::endpoint_slice(&manifest).unwrap().object else {
        panic!("no slice")
    };
    let names = expected
        .endpoints
        .iter_mut()
        .map(|endpoint| endpoint.pod_name.take());
    assert_eq!(names.flatten().count(), 2);
    let Content::Object(Object::EndpointSlice(slice), _) = content(Kind::EndpointSlice, &object) else {
        panic!("no slice")
    };
    assert_eq!(slice, expected);
}
