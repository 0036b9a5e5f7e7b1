//! What `kubectl apply -k deploy` makes of a cluster.

use std::path::{Path, PathBuf};

use lb_tests::control_plane::ControlPlane;
use lb_tests::site;

pub(super) const NAMESPACE: &str = "sluice-system";
const ACCOUNT: &str = "sluice-system:sluice";

/// A folder below deploy/.
pub(super) fn deploy(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(folder)
}

#[test]
fn every_node_gets_an_agent_that_has_the_rights_it_needs_and_no_others() {
    let plane = ControlPlane::start().unwrap();
    site::register_nodes(&plane).unwrap();
    plane
        .kubectl(&["taint", "node", "node1", "dedicated=somebody:NoExecute"])
        .unwrap();
    plane.kubectl(&["cordon", "node2"]).unwrap();
    plane.apply_kustomization(&deploy("")).unwrap();
    check_daemon_set(&plane, "sluice");
    check_rights(&plane);

    plane
        .kubectl(&["delete", "daemonset", "sluice", "--namespace", NAMESPACE])
        .unwrap();
    plane.apply_kustomization(&deploy("cleanup")).unwrap();
    check_daemon_set(&plane, "sluice-cleanup");
    plane
        .kubectl(&[
            "delete",
            "-k",
            &deploy("").to_string_lossy(),
            "--wait=false",
            "--ignore-not-found",
        ])
        .unwrap();
}

/// The controller means to run it on both nodes, whatever taints they have, and admission lets its pods in.
fn check_daemon_set(plane: &ControlPlane, name: &str) {
    let set = plane
        .wait_for(
            &format!("--namespace={NAMESPACE}"),
            &format!("daemonset/{name}"),
            |set| {
                set["status"]["desiredNumberScheduled"] == 2 && set["status"]["currentNumberScheduled"] == 2
            },
        )
        .unwrap();
    assert_eq!(set["status"]["numberMisscheduled"], 0, "{set:#}");
}

fn check_rights(plane: &ControlPlane) {
    let needed = [
        ["get", "services"],
        ["list", "services"],
        ["watch", "services"],
        ["list", "endpointslices.discovery.k8s.io"],
        ["watch", "endpointslices.discovery.k8s.io"],
        ["list", "nodes"],
        ["watch", "nodes"],
        ["list", "servicecidrs.networking.k8s.io"],
        ["watch", "servicecidrs.networking.k8s.io"],
        ["get", "namespaces/kube-system"],
        ["create", "events.events.k8s.io"],
    ];
    let refused = [
        ["get", "secrets"],
        ["get", "nodes"],
        ["get", "endpointslices.discovery.k8s.io"],
        ["list", "configmaps"],
        ["list", "pods"],
        ["update", "services"],
        ["patch", "services/status"],
        ["update", "endpointslices.discovery.k8s.io"],
        ["update", "nodes"],
        ["patch", "nodes/status"],
        ["get", "namespaces/default"],
        ["list", "namespaces"],
        ["patch", "events.events.k8s.io"],
        ["delete", "events.events.k8s.io"],
        ["create", "events"],
        ["create", "serviceaccounts/token"],
        ["*", "*"],
    ];
    for (questions, expected) in [(&needed[..], true), (&refused[..], false)] {
        for question in questions {
            let question = [&question[..], &["--all-namespaces"]].concat();
            let answer = plane.may(ACCOUNT, &question).unwrap();
            assert_eq!(answer, expected, "may {ACCOUNT} {question:?}");
        }
    }
}
