//! The fields of a `KubeProxyConfiguration`, so that the ConfigMap of kubeadm can be mounted as it is.
//!
//! Source: k8s.io/kube-proxy/config/v1alpha1/types.go.

use serde_json::{Map, Value};

use super::ConfigFile;

/// Fields that are settings here, too, by their flags.
const SETTINGS: [(&str, &str); 6] = [
    ("bindAddressHardFail", "bind-address-hard-fail"),
    ("healthzBindAddress", "healthz-bind-address"),
    ("hostnameOverride", "node-name"),
    ("metricsBindAddress", "metrics-bind-address"),
    ("nodePortAddresses", "nodeport-addresses"),
    ("clusterCIDR", "cluster-cidr"),
];

/// Fields that mean nothing here, and why.
const WITHOUT_EFFECT: [(&str, &str); 14] = [
    (
        "bindAddress",
        "the node's addresses are read from its devices and its Node",
    ),
    (
        "configSyncPeriod",
        "the API is watched, and nothing is read anew from time to time",
    ),
    (
        "conntrack",
        "services do not use the kernel's connection tracking",
    ),
    (
        "detectLocal",
        "pods are told by the kind of their device; see --devices and --uplinks",
    ),
    ("enableProfiling", "there is no profiling"),
    ("featureGates", "they are kube-proxy's"),
    ("ipvs", "IPVS is not used"),
    ("logging", "see --log-format and RUST_LOG"),
    ("mode", "there is one data plane, BPF"),
    ("oomScoreAdj", "set it for the container, or by systemd"),
    ("portRange", "no port is proxied in user space"),
    ("showHiddenMetricsForVersion", "no metric is hidden"),
    ("windowsRunAsService", "this is no Windows"),
    ("winkernel", "this is no Windows"),
];

/// Reads the fields that are set. What kubeadm writes for "not set" (null, 0, false, nothing) is nothing.
pub(super) fn read(mut fields: Map<String, Value>) -> ConfigFile {
    let mut file = ConfigFile {
        foreign: true,
        ..ConfigFile::default()
    };
    fields.retain(|_, value| is_set(value));
    local_mode(&mut fields, &mut file);
    masquerade_all(&mut fields, &mut file);
    nested(
        &mut fields,
        "clientConnection",
        "kubeconfig",
        "kubeconfig",
        &mut file,
    );
    nested(
        &mut fields,
        "conntrack",
        "tcpEstablishedTimeout",
        "tcp-established",
        &mut file,
    );
    let every_address = |value: &Value| *value == "0.0.0.0" || *value == "::";
    fields.retain(|field, value| field != "bindAddress" || !every_address(value));
    for (field, value) in fields {
        if let Some((_, flag)) = SETTINGS.iter().find(|(name, _)| *name == field) {
            file.set(flag, &field, value);
            continue;
        }
        let known = WITHOUT_EFFECT.iter().find(|(name, _)| *name == field);
        let why = known.map_or("it is no field that is known here", |(_, why)| why);
        file.notices.push(format!("{field} has no effect: {why}"));
    }
    file
}

/// How kube-proxy tells pods: here by prefixes, those of the cluster or those of the Node.
fn local_mode(fields: &mut Map<String, Value>, file: &mut ConfigFile) {
    let Some(mode) = fields.remove("detectLocalMode") else {
        return;
    };
    match mode.as_str() {
        Some("ClusterCIDR") => {}
        Some("NodeCIDR") => _ = fields.remove("clusterCIDR"),
        _ => file.notices.push(format!(
            "detectLocalMode {mode} has no effect: use ClusterCIDR or NodeCIDR; pods of this node are also told by the \
             kind of their device"
        )),
    }
}

/// It stands in the part of the mode that is used; here there is one.
fn masquerade_all(fields: &mut Map<String, Value>, file: &mut ConfigFile) {
    for part in ["iptables", "nftables"] {
        nested(fields, part, "masqueradeAll", "masquerade-all", file);
    }
}

/// One field of a part that is a setting here, too; the others of that part have no effect.
fn nested(fields: &mut Map<String, Value>, part: &str, name: &str, flag: &str, file: &mut ConfigFile) {
    let Some(Value::Object(inner)) = fields.remove(part) else {
        return;
    };
    for (field, value) in inner.into_iter().filter(|(_, value)| is_set(value)) {
        if field == name {
            file.set(flag, &format!("{part}.{field}"), value);
        } else {
            let why = match part {
                "clientConnection" => "the client has no such setting",
                "conntrack" => "services do not use the kernel's connection tracking",
                _ => "rules of netfilter are not used",
            };
            file.notices.push(format!("{part}.{field} has no effect: {why}"));
        }
    }
}

/// Whether a value says anything.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => fields.values().any(is_set),
    }
}
