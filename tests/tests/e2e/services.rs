//! Services and Pods come, change and go, and traffic follows.

use lb_tests::family::Family;
use lb_tests::site::{self, Outcome};
use serde_json::{Value, json};

use super::stage::{Kind, Stage, TCP, UDP, at_cluster_ip, at_node_port, cases, cluster_ip};

cases!(
    pods_and_services_come_and_go,
    types_change,
    families_come_and_go,
    affinity_is_switched,
);

const ALL: [&str; 4] = ["web-1", "web-2", "web-3", "web-4"];

fn pods_and_services_come_and_go(kind: Kind) {
    let stage = Stage::new(kind, &[]);
    let (plane, client, toolbox) = (&stage.plane, stage.client(), stage.toolbox());
    stage.set_service("web", &json!({ "type": "NodePort" }));
    for family in Family::BOTH {
        let to = at_cluster_ip(plane, "web", family, TCP);
        stage.expect_outcome(&"no pod yet", toolbox, to, |outcome| *outcome == Outcome::Refused);
    }

    site::register_pods(plane, &[0, 2]).unwrap();
    for family in Family::BOTH {
        for port in [TCP, UDP] {
            let at = at_cluster_ip(plane, "web", family, port);
            stage.expect("two pods, from a pod", toolbox, at, &["web-1", "web-3"]);
            let at = at_node_port(plane, "web", family, port);
            stage.expect("two pods, from outside", client, at, &["web-1", "web-3"]);
        }
    }
    let at = at_cluster_ip(plane, "web", Family::V4, TCP);
    site::register_pods(plane, &[1, 3]).unwrap();
    stage.expect("two more", toolbox, at, &ALL);
    site::set_ready(plane, &[2], false).unwrap();
    stage.expect("one is not ready", toolbox, at, &["web-1", "web-2", "web-4"]);
    plane.delete("pod", &["web-1"]).unwrap();
    stage.expect("one terminates", toolbox, at, &["web-2", "web-4"]);
    site::set_ready(plane, &[2], true).unwrap();
    stage.expect("ready again", toolbox, at, &["web-2", "web-3", "web-4"]);

    let from_outside = at_node_port(plane, "web", Family::V4, TCP);
    plane.delete("service", &["web"]).unwrap();
    stage.expect_outcome(&"no service", client, from_outside, |outcome| {
        *outcome == Outcome::Refused
    });
    stage.expect_outcome(&"no service", toolbox, at, |outcome| {
        outcome.backends().is_empty()
    });
}

fn types_change(kind: Kind) {
    let stage = Stage::new(kind, &[0, 1, 2, 3]);
    let (plane, client, toolbox) = (&stage.plane, stage.client(), stage.toolbox());
    stage.set_service("web", &json!({ "type": "NodePort" }));
    let inside = at_cluster_ip(plane, "web", Family::V4, TCP);
    let outside = at_node_port(plane, "web", Family::V4, TCP);
    stage.expect("NodePort, from a pod", toolbox, inside, &ALL);
    stage.expect("NodePort, from outside", client, outside, &ALL);

    stage.patch("web", &json!({ "type": "ClusterIP" }));
    stage.expect_outcome(&"ClusterIP, from outside", client, outside, |outcome| {
        *outcome == Outcome::Refused
    });
    stage.expect("ClusterIP, from a pod", toolbox, inside, &ALL);

    let external = json!({
        "type": "ExternalName", "externalName": "example.com",
        "clusterIP": "", "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null,
    });
    stage.patch("web", &external);
    let nobody = |outcome: &Outcome| outcome.backends().is_empty();
    stage.expect_outcome(&"ExternalName", toolbox, inside, nobody);

    stage.patch(
        "web",
        &json!({ "type": "NodePort", "externalName": null, "ipFamilyPolicy": "RequireDualStack" }),
    );
    for family in Family::BOTH {
        let inside = at_cluster_ip(plane, "web", family, UDP);
        stage.expect("NodePort again, from a pod", toolbox, inside, &ALL);
        let outside = at_node_port(plane, "web", family, UDP);
        stage.expect("NodePort again, from outside", client, outside, &ALL);
    }

    // A Service cannot become headless: it has to be another one of that name.
    let inside = at_cluster_ip(plane, "web", Family::V4, TCP);
    plane.kubectl(&["delete", "service", "web"]).unwrap();
    stage.set_service("web", &json!({ "clusterIP": "None" }));
    stage.expect_outcome(&"headless", toolbox, inside, nobody);

    plane.kubectl(&["delete", "service", "web"]).unwrap();
    let mut others = site::service("web", site::APP, &json!({}));
    others["metadata"]["labels"] = json!({ "service.kubernetes.io/service-proxy-name": "another" });
    plane.apply(&[others]).unwrap();
    let inside = at_cluster_ip(plane, "web", Family::V4, TCP);
    stage.expect_outcome(&"of another proxy", toolbox, inside, nobody);
    plane
        .kubectl(&[
            "label",
            "service",
            "web",
            "service.kubernetes.io/service-proxy-name-",
        ])
        .unwrap();
    stage.expect("ours again", toolbox, inside, &ALL);
}

fn families_come_and_go(kind: Kind) {
    let stage = Stage::new(kind, &[0, 1, 2, 3]);
    let (plane, toolbox) = (&stage.plane, stage.toolbox());
    for family in Family::BOTH {
        let name = family.name().to_lowercase();
        let single = json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": [family.name()] });
        stage.set_service(&name, &single);
        let only = at_cluster_ip(plane, &name, family, TCP);
        stage.expect("one family", toolbox, only, &ALL);
        let other = Family::BOTH.into_iter().find(|other| *other != family).unwrap();
        assert_eq!(cluster_ip(plane, &name, other), None);

        stage.patch(&name, &json!({ "ipFamilyPolicy": "RequireDualStack" }));
        let second = at_cluster_ip(plane, &name, other, UDP);
        stage.expect("both families", toolbox, second, &ALL);
        stage.expect("the first one", toolbox, only, &ALL);

        let back = json!({
            "ipFamilyPolicy": "SingleStack", "ipFamilies": [family.name()], "clusterIPs": [only.1.ip()],
        });
        stage.patch(&name, &back);
        stage.expect_outcome(&"one family again", toolbox, second, |outcome| {
            outcome.backends().is_empty()
        });
        stage.expect("it goes on", toolbox, only, &ALL);
    }
}

fn affinity_is_switched(kind: Kind) {
    let stage = Stage::new(kind, &[0, 1, 2, 3]);
    let (plane, client, toolbox) = (&stage.plane, stage.client(), stage.toolbox());
    let sticky = json!({ "type": "NodePort", "sessionAffinity": "ClientIP" });
    stage.set_service("web", &sticky);
    let is_one = |outcome: &Outcome| outcome.backends().len() == 1;
    for family in Family::BOTH {
        let inside = at_cluster_ip(plane, "web", family, TCP);
        stage.expect_outcome(&"with affinity, from a pod", toolbox, inside, is_one);
        let outside = at_node_port(plane, "web", family, TCP);
        stage.expect_outcome(&"with affinity, from outside", client, outside, is_one);
    }
    let without: Value = json!({ "sessionAffinity": "None", "sessionAffinityConfig": null });
    stage.patch("web", &without);
    for family in Family::BOTH {
        let inside = at_cluster_ip(plane, "web", family, TCP);
        stage.expect("without affinity", toolbox, inside, &ALL);
    }
}
